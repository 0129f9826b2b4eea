import { Anchor, Button, Stack, Switch, TextInput, VisuallyHidden } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Session } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Answer, Empty } from '../ui/feedback'
import { done } from '../ui/notify'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { StatePill } from '../ui/state'
import { byText, DataTable, Two } from '../ui/table'
import { matches } from '../ui/text'
import { Ago } from '../ui/time'
import { SessionModal } from './SessionModal'

export function SessionsPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const client = useQueryClient()
  const [filter, setFilter] = useState('')
  const [past, setPast] = useState(false)
  const [ending, setEnding] = useState<Session>()
  const [reason, setReason] = useState('')
  const [shown, setShown] = useState<string>()
  const query = useQuery({ queryKey: keys.sessions, queryFn: calls.sessions })
  const detail = query.data?.items.find((session) => session.id === shown)
  const columns = useMemo<ColumnDef<Session>[]>(
    () => [
      {
        id: 'user',
        header: t('session.user'),
        accessorFn: (row) => row.user?.username ?? '',
        sortingFn: byText((row) => row.user?.username),
        cell: ({ row }) => (
          <Two
            main={
              <Anchor component="button" type="button" className="link" onClick={() => setShown(row.original.id)}>
                {row.original.user?.username ?? '—'}
              </Anchor>
            }
            sub={row.original.site_code}
          />
        ),
      },
      {
        id: 'state',
        header: t('common.state'),
        accessorFn: (row) => row.state,
        meta: { width: 175, narrow: 150 },
        cell: ({ row }) => <StatePill group="session.state" state={row.original.state} />,
      },
      {
        id: 'desktop',
        header: t('desktop.one'),
        accessorFn: (row) => row.desktop?.name ?? '',
        sortingFn: byText((row) => row.desktop?.name),
        meta: { from: 'sm' },
        cell: ({ row }) => row.original.desktop?.name ?? '—',
      },
      {
        id: 'opened',
        header: t('session.opened'),
        accessorFn: (row) => row.created_at,
        meta: { width: 150, from: 'md' },
        cell: ({ row }) => <Ago at={row.original.created_at} />,
      },
      {
        id: 'active',
        header: t('session.lastActive'),
        accessorFn: (row) => row.last_active_at ?? '',
        meta: { width: 150, from: 'md' },
        cell: ({ row }) => <Ago at={row.original.last_active_at} />,
      },
      {
        id: 'resumes',
        header: t('session.resumes'),
        accessorFn: (row) => row.resumes,
        meta: { width: 110, numeric: true, from: 'lg' },
        cell: ({ row }) => format.number(row.original.resumes),
      },
      {
        id: 'end',
        header: () => <VisuallyHidden>{t('common.actions')}</VisuallyHidden>,
        enableSorting: false,
        meta: { width: 120, narrow: 95 },
        cell: ({ row }) =>
          row.original.state !== 'ended' && (
            <Button size="compact-sm" variant="default" onClick={() => {
                setReason('')
                setEnding(row.original)
              }}>
              {t('session.end')}
            </Button>
          ),
      },
    ],
    [t, format],
  )
  return (
    <Page
      title={t('nav.sessions')}
      lead={t('session.lead')}
      actions={
        <>
          <Switch label={t('session.past')} checked={past} onChange={(event) => setPast(event.currentTarget.checked)} />
          <SearchBox value={filter} onChange={setFilter} placeholder={t('session.filter')} />
        </>
      }
    >
      <Answer query={query}>
        {(list) => {
          const rows = list.items.filter(
            (s) => (past || s.state !== 'ended') && matches(filter, s.user?.username, s.desktop?.name, s.site_code),
          )
          return rows.length === 0 && !filter ? (
            <Empty title={t('session.none')} />
          ) : (
            <DataTable
              label={t('nav.sessions')}
              rows={rows}
              columns={columns}
              rowId={(row) => row.id}
              initialSort={[{ id: 'opened', desc: true }]}
            />
          )
        }}
      </Answer>
      {detail && <SessionModal session={detail} onClose={() => setShown(undefined)} />}
      {ending && (
        <Confirm
          opened
          danger
          title={t('session.end')}
          action={t('session.end')}
          onClose={() => setEnding(undefined)}
          onConfirm={async () => {
            await calls.endSession(ending.id, reason.trim())
            done(t('session.ended'))
            await client.invalidateQueries({ queryKey: keys.sessions })
          }}
        >
          <Stack gap="sm">
            {t('session.endAsk', { user: ending.user?.username ?? '—' })}
            <TextInput
              label={t('session.reason')}
              description={t('session.reasonHint')}
              value={reason}
              maxLength={200}
              onChange={(event) => setReason(event.currentTarget.value)}
            />
          </Stack>
        </Confirm>
      )}
    </Page>
  )
}
