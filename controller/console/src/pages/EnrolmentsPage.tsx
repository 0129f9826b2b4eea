import { SegmentedControl, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Enrolment } from '../api/types'
import { SAFETY_MS } from '../live/events'
import { Answer, Empty } from '../ui/feedback'
import { Page } from '../ui/page'
import { StatePill, type Tone } from '../ui/state'
import { DataTable, Two } from '../ui/table'
import { Ago, Exact } from '../ui/time'
import { grouped } from './callText'

/** Computers that showed a token and wait for somebody to approve them. */
export function EnrolmentsPage() {
  const { t } = useTranslation()
  const [which, setWhich] = useState('waiting')
  const decided = which === 'decided'
  const query = useQuery({ queryKey: keys.enrolments(which), queryFn: () => calls.enrolments(decided), refetchInterval: SAFETY_MS })
  const columns = useEnrolmentColumns()
  return (
    <Page
      title={t('nav.enrolments')}
      lead={t('enrolment.lead')}
      actions={
        <SegmentedControl
          aria-label={t('common.state')}
          data={['waiting', 'decided'].map((value) => ({ value, label: t(`enrolment.which.${value}`) }))}
          value={which}
          onChange={setWhich}
        />
      }
    >
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t(decided ? 'enrolment.noneDecided' : 'enrolment.none')}>{t('enrolment.noneHint')}</Empty>
          ) : (
            <DataTable label={t('nav.enrolments')} rows={list.items} columns={columns} rowId={(row) => row.id} />
          )
        }
      </Answer>
    </Page>
  )
}

function useEnrolmentColumns() {
  const { t } = useTranslation()
  return useMemo<ColumnDef<Enrolment>[]>(
    () => [
      {
        id: 'code',
        header: t('enrolment.code'),
        accessorFn: (row) => row.code,
        meta: { width: 120, narrow: 110 },
        cell: ({ row }) => (
          <Link className="link" to={`/enrolments/${row.original.id}`}>
            {grouped(row.original.code)}
          </Link>
        ),
      },
      {
        id: 'computer',
        header: t('enrolment.computer'),
        accessorFn: (row) => row.name,
        cell: ({ row }) => (
          <Two
            main={row.original.name}
            sub={[row.original.site.name, row.original.site.district].filter(Boolean).join(', ')}
          />
        ),
      },
      {
        id: 'serial',
        header: t('endpoint.serial'),
        accessorFn: (row) => row.hardware?.serial ?? '',
        meta: { from: 'md' },
        cell: ({ row }) => row.original.hardware?.serial ?? '—',
      },
      {
        id: 'state',
        header: t('common.state'),
        accessorFn: (row) => row.state,
        meta: { width: 170, narrow: 140 },
        cell: ({ row }) => <StatePill group="enrolment.state" state={row.original.state} tone={enrolmentTones[row.original.state]} />,
      },
      {
        id: 'asked',
        header: t('enrolment.asked'),
        accessorFn: (row) => row.asked_at,
        meta: { width: 150, from: 'sm' },
        cell: ({ row }) => <Ago at={row.original.asked_at} />,
      },
      {
        id: 'expires',
        header: t('token.expires'),
        accessorFn: (row) => row.expires_at,
        meta: { width: 160, from: 'md' },
        cell: ({ row }) => (row.original.state === 'pending' ? <Exact at={row.original.expires_at} /> : <Text size="sm">—</Text>),
      },
    ],
    [t],
  )
}

export const enrolmentTones: Record<Enrolment['state'], Tone> = { pending: 'warn', approved: 'ok', refused: 'bad', expired: 'idle' }
