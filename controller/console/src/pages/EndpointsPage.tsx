import { Select } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Endpoint } from '../api/types'
import { Answer, Empty } from '../ui/feedback'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { StatePill } from '../ui/state'
import { byText, DataTable, Two } from '../ui/table'
import { matches } from '../ui/text'
import { Ago } from '../ui/time'
import { DiagnosesWaiting } from './DiagnosesWaiting'

/** Who shows the identity matters more than whether it is heard. */
function shown(endpoint: Endpoint): string {
  return endpoint.quarantined_at && endpoint.state !== 'revoked' ? 'quarantined' : endpoint.state
}

export function EndpointsPage() {
  const { t } = useTranslation()
  const [filter, setFilter] = useState('')
  const [state, setState] = useState<string | null>(null)
  const [verdict, setVerdict] = useState<string | null>(null)
  const query = useQuery({ queryKey: keys.endpoints, queryFn: calls.endpoints })
  const columns = useMemo<ColumnDef<Endpoint>[]>(
    () => [
      {
        id: 'name',
        header: t('endpoint.name'),
        accessorFn: (row) => row.name,
        sortingFn: byText((row) => row.name),
        cell: ({ row }) => (
          <Two
            main={
              <Link className="link" to={`/endpoints/${row.original.id}`}>
                {row.original.name}
              </Link>
            }
            sub={row.original.hardware?.model}
          />
        ),
      },
      {
        id: 'state',
        header: t('endpoint.link'),
        accessorFn: shown,
        meta: { width: 150 },
        cell: ({ row }) => <StatePill group="endpoint.state" state={shown(row.original)} />,
      },
      {
        id: 'verdict',
        header: t('endpoint.health'),
        accessorFn: (row) => row.verdict,
        meta: { width: 140, from: 'sm' },
        cell: ({ row }) => <StatePill group="endpoint.verdict" state={row.original.verdict} />,
      },
      {
        id: 'site',
        header: t('site.one'),
        accessorFn: (row) => row.site.name,
        sortingFn: byText((row) => row.site.name),
        meta: { from: 'sm' },
        cell: ({ row }) => <Two main={row.original.site.name} sub={row.original.site.district} />,
      },
      {
        id: 'seen',
        header: t('endpoint.lastSeen'),
        accessorFn: (row) => row.last_seen_at ?? '',
        meta: { width: 140, from: 'md' },
        cell: ({ row }) => <Ago at={row.original.last_seen_at} />,
      },
      {
        id: 'version',
        header: t('endpoint.agent'),
        accessorFn: (row) => row.agent_version ?? '',
        meta: { width: 120, from: 'lg' },
        cell: ({ row }) => row.original.agent_version ?? '—',
      },
    ],
    [t],
  )
  return (
    <Page
      title={t('nav.endpoints')}
      lead={t('endpoint.lead')}
      actions={
        <>
          <SearchBox value={filter} onChange={setFilter} placeholder={t('endpoint.filter')} />
          <Select
            aria-label={t('endpoint.link')}
            placeholder={t('desktop.anyState')}
            data={['online', 'silent', 'never', 'quarantined', 'revoked'].map((value) => ({ value, label: t(`endpoint.state.${value}`) }))}
            value={state}
            onChange={setState}
            clearable
            clearButtonProps={{ 'aria-label': t('common.clear') }}
            w={{ base: '100%', xs: 190 }}
          />
          <Select
            aria-label={t('endpoint.health')}
            placeholder={t('health.anyVerdict')}
            data={['crit', 'warn', 'unknown', 'ok'].map((value) => ({ value, label: t(`endpoint.verdict.${value}`) }))}
            value={verdict}
            onChange={setVerdict}
            clearable
            clearButtonProps={{ 'aria-label': t('common.clear') }}
            w={{ base: '100%', xs: 190 }}
          />
        </>
      }
    >
      <DiagnosesWaiting />
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('endpoint.none')}>
              <Link className="link" to="/tokens">
                {t('endpoint.noneHint')}
              </Link>
            </Empty>
          ) : (
            <DataTable
              label={t('nav.endpoints')}
              rows={list.items.filter(
                (e) =>
                  (!state || shown(e) === state) &&
                  (!verdict || e.verdict === verdict) &&
                  matches(filter, e.name, e.site.name, e.site.district, e.hardware?.model, e.hardware?.serial),
              )}
              columns={columns}
              rowId={(row) => row.id}
              initialSort={[{ id: 'name', desc: false }]}
            />
          )
        }
      </Answer>
    </Page>
  )
}
