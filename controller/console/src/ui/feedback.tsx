import { Alert, Button, Group, Skeleton, Stack, Text } from '@mantine/core'
import type { UseQueryResult } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { asProblem, type Fault } from '../api/problem'
import { useSupportPhone } from '../app/session'
import { isLine, problemText } from './errors'

/** What happened, what to do, whom to call and a short code. Without a way to load again it was something to be done. */
export function ErrorPanel({ error, onRetry, title }: { error: unknown; onRetry?: () => void; title?: string }) {
  const { t } = useTranslation()
  const phone = useSupportPhone()
  const problem = asProblem(error)
  const said = useNamed()
  // One fault that says no more than the sentence above it.
  const [first, ...more] = problem.faults
  const same = first !== undefined && more.length === 0 && first.code === problem.code && !said(first)
  return (
    <Alert
      role="alert"
      variant="outline"
      color="red"
      title={title ?? t(onRetry ? 'errors.title' : 'errors.notDone')}
      styles={{
        root: { background: 'var(--tram-card)' },
        title: { color: 'light-dark(#9c1c1c, #ffa8a8)' },
        message: { color: 'var(--mantine-color-text)' },
      }}
    >
      <Stack gap="xs" align="flex-start">
        <Text size="sm">{problemText(t, error)}</Text>
        {first && !same && <FaultList error={error} />}
        <Group gap="sm">
          {onRetry && (
            <Button size="compact-sm" variant="default" onClick={onRetry}>
              {t('common.retry')}
            </Button>
          )}
          <Text size="xs" className="quiet" component="span">
            {t('errors.code', { code: problem.code })}
            {phone ? ` · ${t('errors.call', { phone })}` : ''}
          </Text>
        </Group>
      </Stack>
    </Alert>
  )
}

/** Whether a fault has a sentence of its own for its field, which then says what the field is. */
function useNamed() {
  const { i18n } = useTranslation()
  return (fault: Fault) => i18n.exists(`errors.${fault.code}_${fault.at}`)
}

export function FaultList({ error }: { error: unknown }) {
  const { t } = useTranslation()
  const named = useNamed()
  const faults = asProblem(error).faults
  return (
    <div
      tabIndex={0}
      role="region"
      aria-label={t('errors.faults', { count: faults.length })}
      style={{ maxHeight: 220, overflow: 'auto', alignSelf: 'stretch' }}
    >
      <Stack gap={2} component="ul" m={0} pl="lg">
        {faults.map((fault, index) => (
          <Text component="li" size="sm" key={index}>
            {!named(fault) && <b>{isLine(fault) ? t('errors.line', { line: fault.at }) : `${fault.at}:`} </b>}
            {fault.code ? t([`errors.${fault.code}_${fault.at}`, `errors.${fault.code}`], { defaultValue: fault.message }) : fault.message}
            {fault.code ? ` (${fault.code})` : ''}
          </Text>
        ))}
      </Stack>
    </div>
  )
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <Stack className="card" align="center" gap="xs" p="xl" ta="center">
      <Text fw={600}>{title}</Text>
      {children && (
        <Text size="sm" className="quiet" component="div">
          {children}
        </Text>
      )}
    </Stack>
  )
}

export function Loading({ rows = 6 }: { rows?: number }) {
  const { t } = useTranslation()
  return (
    <Stack gap="xs" role="status" aria-label={t('common.loading')}>
      {Array.from({ length: rows }, (_, i) => (
        <Skeleton key={i} height={38} radius="sm" />
      ))}
    </Stack>
  )
}

/** The three states every page shares; `children` sees only good data. */
export function Answer<T>({
  query,
  rows,
  children,
}: {
  query: UseQueryResult<T>
  rows?: number
  children: (data: T) => ReactNode
}) {
  if (query.data !== undefined) {
    return (
      <Stack gap="md">
        {query.isError && <ErrorPanel error={query.error} onRetry={() => void query.refetch()} />}
        {children(query.data)}
      </Stack>
    )
  }
  if (query.isError) return <ErrorPanel error={query.error} onRetry={() => void query.refetch()} />
  return <Loading rows={rows} />
}
