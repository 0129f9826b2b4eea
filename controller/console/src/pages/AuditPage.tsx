import { Button } from '@mantine/core'
import { useDebouncedValue } from '@mantine/hooks'
import { useInfiniteQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { AuditRow } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Empty, ErrorPanel, Loading } from '../ui/feedback'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { StatePill, type Tone } from '../ui/state'
import { DataTable, Two } from '../ui/table'

interface Numbered extends AuditRow {
  key: string
}

function detailText(detail: unknown): string {
  if (detail === null || detail === undefined) return ''
  if (typeof detail !== 'object') return String(detail)
  return Object.entries(detail)
    .map(([name, value]) => `${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' · ')
}

const toneOfResult = (result: string): Tone => (result === 'ok' ? 'ok' : result === 'denied' ? 'warn' : 'bad')

export function AuditPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const [text, setText] = useState('')
  const [q] = useDebouncedValue(text.trim(), 250)
  const query = useInfiniteQuery({
    queryKey: keys.audit(q),
    queryFn: ({ pageParam }) => calls.audit(q, pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
  })
  const rows = useMemo<Numbered[]>(
    () => (query.data?.pages ?? []).flatMap((page) => page.items).map((row, i) => ({ ...row, key: `${row.at}-${i}` })),
    [query.data],
  )
  const columns = useMemo<ColumnDef<Numbered>[]>(
    () => [
      {
        id: 'at',
        header: t('audit.at'),
        enableSorting: false,
        meta: { width: 175, narrow: 100 },
        cell: ({ row }) => format.dateTime(row.original.at, true),
      },
      {
        id: 'actor',
        header: t('audit.actor'),
        enableSorting: false,
        meta: { from: 'sm', width: 170 },
        cell: ({ row }) => (
          <Two
            main={row.original.actor}
            sub={row.original.role ? t(`role.${row.original.role}`, { defaultValue: row.original.role }) : undefined}
          />
        ),
      },
      {
        id: 'action',
        header: t('audit.action'),
        enableSorting: false,
        cell: ({ row }) => (
          <Two
            main={t(`audit.actionName.${row.original.action.replaceAll('.', '_')}`, { defaultValue: row.original.action })}
            sub={row.original.target}
          />
        ),
      },
      {
        id: 'detail',
        header: t('audit.detail'),
        enableSorting: false,
        meta: { from: 'md' },
        cell: ({ row }) => <span title={detailText(row.original.detail)}>{detailText(row.original.detail) || '—'}</span>,
      },
      {
        id: 'ip',
        header: 'IP',
        enableSorting: false,
        meta: { from: 'lg', width: 150 },
        cell: ({ row }) => row.original.ip ?? '—',
      },
      {
        id: 'result',
        header: t('audit.result'),
        enableSorting: false,
        meta: { width: 160, narrow: 130 },
        cell: ({ row }) => (
          <StatePill group="audit.resultName" state={row.original.result} tone={toneOfResult(row.original.result)} />
        ),
      },
    ],
    [t, format],
  )
  return (
    <Page
      title={t('nav.audit')}
      lead={t('audit.lead')}
      actions={<SearchBox value={text} onChange={setText} placeholder={t('audit.search')} />}
    >
      {query.isError && <ErrorPanel error={query.error} onRetry={() => void query.refetch()} />}
      {query.isPending ? (
        <Loading rows={10} />
      ) : rows.length === 0 && !q ? (
        !query.isError && <Empty title={t('audit.none')} />
      ) : (
        <>
          <DataTable label={t('nav.audit')} rows={rows} columns={columns} rowId={(row) => row.key} />
          {query.hasNextPage && (
            <Button variant="default" loading={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
              {t('audit.more')}
            </Button>
          )}
        </>
      )}
    </Page>
  )
}
