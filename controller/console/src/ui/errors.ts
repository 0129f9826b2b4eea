import type { TFunction } from 'i18next'
import { asProblem, type Fault, type Problem } from '../api/problem'
import { clock } from '../i18n/format'

/** What happened and what to do, in the reader's language; the code is shown beside it. */
export function problemText(t: TFunction, error: unknown): string {
  const problem = asProblem(error)
  const known = `errors.${problem.code}`
  const values = {
    remaining: problem.extra.remaining as number,
    until: clock(problem.extra.until as string | undefined),
  }
  const wrongPassword = problem.code === 'A-101' && values.remaining === undefined
  const text = t(wrongPassword ? 'errors.wrongPassword' : known, { ...values, defaultValue: '' })
  if (text) return text
  if (problem.detail) return problem.detail
  if (problem.status === 403) return t('errors.forbidden')
  if (problem.status === 404) return t('errors.notFound')
  if (problem.status >= 500) return t('errors.server')
  return problem.message
}

/** Lines of a file are numbers, fields of a form are not. */
export function isLine(fault: Fault): boolean {
  return /^\d+$/.test(fault.at)
}

/** The faults of a rejected form, keyed by field, ready for `form.setErrors`. */
export function fieldErrors(t: TFunction, problem: Problem): Record<string, string> {
  const found: Record<string, string> = {}
  for (const fault of problem.faults) {
    if (isLine(fault)) continue
    found[fault.at] = fault.code ? t(`errors.${fault.code}`, { defaultValue: fault.message }) : fault.message
  }
  return found
}
