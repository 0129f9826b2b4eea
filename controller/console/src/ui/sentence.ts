import texts from '../../../../agent/src/checks/texts.json'

type Sentences = Record<string, { vi: string[]; en: string[] } | undefined>

/** What a check's code says, and what to do about it: the same words as at the endpoint itself. */
export function sentence(code: string, params: Record<string, string>, language: 'vi' | 'en') {
  const [what = code, next = ''] = (texts as Sentences)[code]?.[language] ?? []
  return { what: what.replace(/\{(\w+)\}/g, (_, name: string) => params[name] ?? '?'), next }
}
