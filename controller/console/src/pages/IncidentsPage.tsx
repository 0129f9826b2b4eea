import { SegmentedControl, Select, Stack, Text, Title, Tooltip } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Incident, Site } from '../api/types'
import { SAFETY_MS } from '../live/events'
import { Answer, Empty } from '../ui/feedback'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { StatePill } from '../ui/state'
import { DataTable, Two } from '../ui/table'
import { matches } from '../ui/text'
import { Ago } from '../ui/time'
import { useIncidentText } from './incidentText'

/** What is wrong now and why, causes before symptoms; or, below the same filter, what was. */
export function IncidentsPage() {
  const { t } = useTranslation()
  const words = useIncidentText()
  const [filter, setFilter] = useState('')
  const [which, setWhich] = useState('open')
  const [cause, setCause] = useState<string | null>(null)
  const query = useQuery({ queryKey: keys.incidents, queryFn: calls.incidents })
  const columns = useMemo<ColumnDef<Incident>[]>(
    () => [
      {
        id: 'cause',
        header: t('incident.cause'),
        accessorFn: (row) => row.cause,
        cell: ({ row }) => (
          <Two
            main={
              <Link className="link" to={`/incidents/${row.original.id}`}>
                {words.cause(row.original)}
              </Link>
            }
            sub={words.scope(row.original)}
          />
        ),
      },
      {
        id: 'severity',
        header: t('incident.severity'),
        accessorFn: (row) => row.severity,
        meta: { width: 150, narrow: 150 },
        cell: ({ row }) =>
          row.original.open ? (
            <StatePill group="incident.severities" state={row.original.severity} />
          ) : (
            <StatePill group="incident.states" state="over" tone="idle" />
          ),
      },
      {
        id: 'evidence',
        header: t('incident.evidence'),
        enableSorting: false,
        meta: { from: 'md' },
        cell: ({ row }) => <Two main={words.sentence(row.original.evidence[0])} />,
      },
      {
        id: 'party',
        header: t('incident.party'),
        accessorFn: (row) => row.party,
        meta: { width: 220, from: 'lg' },
        cell: ({ row }) => <Two main={t(`incident.parties.${row.original.party}`)} sub={row.original.acknowledged_by} />,
      },
      {
        id: 'opened',
        header: t('incident.since'),
        accessorFn: (row) => row.opened_at,
        meta: { width: 150, from: 'sm' },
        cell: ({ row }) => <Ago at={row.original.opened_at} />,
      },
    ],
    [t, words],
  )
  return (
    <Page
      title={t('nav.incidents')}
      lead={t('incident.lead')}
      actions={
        <>
          <SearchBox value={filter} onChange={setFilter} placeholder={t('incident.filter')} />
          <SegmentedControl
            aria-label={t('common.state')}
            data={['open', 'over', 'all'].map((value) => ({ value, label: t(`incident.which.${value}`) }))}
            value={which}
            onChange={setWhich}
          />
        </>
      }
    >
      <Tiles />
      <Answer query={query}>
        {(list) => {
          const shown = list.items.filter(
            (i) =>
              (which === 'all' || i.open === (which === 'open')) &&
              (!cause || i.cause === cause) &&
              matches(filter, words.cause(i), words.scope(i), i.site?.name, i.site?.district, i.scope),
          )
          const causes = [...new Set(list.items.map((i) => i.cause))]
          return (
            <>
              {causes.length > 1 && (
                <Select
                  aria-label={t('incident.cause')}
                  placeholder={t('incident.anyCause')}
                  data={causes.map((value) => ({ value, label: t(`incident.causes.${value}`) }))}
                  value={cause}
                  onChange={setCause}
                  clearable
                  clearButtonProps={{ 'aria-label': t('common.clear') }}
                  w={{ base: '100%', xs: 300 }}
                />
              )}
              {shown.length === 0 && which === 'open' && !filter && !cause ? (
                <Empty title={t('incident.none')}>{t('incident.noneHint')}</Empty>
              ) : (
                <DataTable
                  label={t('nav.incidents')}
                  rows={shown}
                  columns={columns}
                  rowId={(row) => row.id}
                  initialSort={[{ id: 'opened', desc: true }]}
                />
              )}
            </>
          )
        }}
      </Answer>
    </Page>
  )
}

/** All communes by district, each a tile; those with an open incident stand out, by shape as well as by colour. */
function Tiles() {
  const { t } = useTranslation()
  const sites = useQuery({ queryKey: keys.sites('', 'commune'), queryFn: () => calls.sites('', 'commune') })
  const health = useQuery({ queryKey: keys.siteHealth, queryFn: calls.siteHealth, refetchInterval: SAFETY_MS })
  const endpoints = useQuery({ queryKey: keys.endpoints, queryFn: calls.endpoints })
  const bad = useMemo(() => new Map(health.data?.items.map((h) => [h.site, h])), [health.data])
  const used = useMemo(() => new Set(endpoints.data?.items.map((e) => e.site.code)), [endpoints.data])
  const districts = useMemo(() => {
    const byDistrict = new Map<string, Site[]>()
    for (const site of sites.data?.items ?? []) {
      if (!used.has(site.code) && !bad.has(site.code)) continue
      const district = site.district?.name ?? ''
      byDistrict.set(district, [...(byDistrict.get(district) ?? []), site])
    }
    return [...byDistrict].sort(([a], [b]) => a.localeCompare(b, 'vi'))
  }, [sites.data, used, bad])
  if (districts.length === 0) return null
  return (
    <Stack className="card" p="md" gap="sm" component="section" aria-label={t('incident.map')}>
      <Title order={2} fz={17}>
        {t('incident.map')}
      </Title>
      <div className="tile-map">
        {districts.map(([district, communes]) => {
          const wrong = communes.filter((c) => bad.has(c.code)).length
          return (
            <div key={district} className="tile-group">
              <Text size="xs" fw={600}>
                {district}{' '}
                <span className="quiet">
                  {wrong > 0 ? t('incident.tilesBad', { count: wrong, of: communes.length }) : communes.length}
                </span>
              </Text>
              <div className="tiles">
                {communes.map((commune) => {
                  const found = bad.get(commune.code)
                  const state = t(`incident.tile.${found?.severity ?? 'ok'}`)
                  const label = `${commune.name}: ${state}`
                  const tile = <span className={`tile tile-${found?.severity ?? 'ok'}`} aria-hidden="true" />
                  return (
                    <Tooltip key={commune.code} label={label} openDelay={150}>
                      {found ? (
                        <Link to={`/incidents/${found.incidents[0]}`} aria-label={label} data-site={commune.code}>
                          {tile}
                        </Link>
                      ) : (
                        <span role="img" aria-label={label}>
                          {tile}
                        </span>
                      )}
                    </Tooltip>
                  )
                })}
              </div>
            </div>
          )
        })}
      </div>
    </Stack>
  )
}
