import { Button, Group, SegmentedControl, Stack, Text, TextInput } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useNavigate } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Call, CallsFound } from '../api/types'
import { SAFETY_MS } from '../live/events'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { useOnce } from '../ui/once'
import { Page, Section } from '../ui/page'
import { StatePill } from '../ui/state'
import { DataTable, Two } from '../ui/table'
import { Ago } from '../ui/time'
import { callTones, grouped } from './callText'

/** Officers who called support; the code that one reads out leads to the call. */
export function CallsPage() {
  const { t } = useTranslation()
  const [which, setWhich] = useState('open')
  const over = which === 'open' ? false : undefined
  const query = useQuery({ queryKey: keys.calls(which), queryFn: () => calls.supportCalls({ over }), refetchInterval: SAFETY_MS })
  const columns = useCallColumns()
  return (
    <Page
      title={t('nav.calls')}
      lead={t('call.lead')}
      actions={
        <SegmentedControl
          aria-label={t('common.state')}
          data={['open', 'all'].map((value) => ({ value, label: t(`call.which.${value}`) }))}
          value={which}
          onChange={setWhich}
        />
      }
    >
      <CodeBox />
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('call.none')}>{t('call.noneHint')}</Empty>
          ) : (
            <DataTable
              label={t('nav.calls')}
              rows={list.items}
              columns={columns}
              rowId={(row) => row.id}
              initialSort={[{ id: 'opened', desc: true }]}
            />
          )
        }
      </Answer>
    </Page>
  )
}

function useCallColumns() {
  const { t } = useTranslation()
  return useMemo<ColumnDef<Call>[]>(
    () => [
      {
        id: 'code',
        header: t('call.code'),
        accessorFn: (row) => row.code,
        meta: { width: 130, narrow: 110 },
        cell: ({ row }) => (
          <Link className="link" to={`/calls/${row.original.id}`}>
            {grouped(row.original.code)}
          </Link>
        ),
      },
      {
        id: 'computer',
        header: t('call.computer'),
        accessorFn: (row) => row.endpoint_name,
        cell: ({ row }) => (
          <Two
            main={row.original.endpoint_name}
            sub={[row.original.site.name, row.original.site.district].filter(Boolean).join(', ')}
          />
        ),
      },
      {
        id: 'state',
        header: t('common.state'),
        accessorFn: (row) => row.state,
        meta: { width: 190, narrow: 150 },
        cell: ({ row }) => <StatePill group="call.states" state={row.original.state} tone={callTones[row.original.state]} />,
      },
      {
        id: 'taken',
        header: t('call.takenBy'),
        accessorFn: (row) => row.taken_by ?? '',
        meta: { width: 200, from: 'md' },
        cell: ({ row }) => <Two main={row.original.taken_by ?? '—'} />,
      },
      {
        id: 'opened',
        header: t('call.opened'),
        accessorFn: (row) => row.opened_at,
        meta: { width: 150, from: 'sm' },
        cell: ({ row }) => <Ago at={row.original.opened_at} />,
      },
    ],
    [t],
  )
}

/** Six digits and Enter. */
function CodeBox() {
  const { t } = useTranslation()
  const navigate = useNavigate()
  const [code, setCode] = useState('')
  const [found, setFound] = useState<CallsFound>()
  const [error, setError] = useState<unknown>()
  const [, once] = useOnce()
  const search = async () => {
    setError(undefined)
    setFound(undefined)
    try {
      const answer = await calls.findCall(code)
      const live = answer.calls.filter((c) => !c.over_at)
      if (live.length === 1 && live[0]) await navigate(`/calls/${live[0].id}`)
      else setFound(answer)
    } catch (failure) {
      setError(failure)
    }
  }
  const open = async (endpoint: string) => {
    try {
      const call = await calls.expectCall(endpoint, code)
      await navigate(`/calls/${call.id}`)
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <form
      className="card"
      style={{ padding: 'var(--mantine-spacing-lg)' }}
      onSubmit={(event) => {
        event.preventDefault()
        void once(search)
      }}
    >
      <Stack gap="sm">
        <Group align="flex-end" gap="sm">
          <TextInput
            label={t('call.readOut')}
            description={t('call.readOutHint')}
            value={code}
            onChange={(event) => setCode(event.currentTarget.value)}
            inputMode="numeric"
            autoComplete="off"
            maxLength={12}
            size="md"
            data-autofocus
            autoFocus
          />
          <Button type="submit" size="md" disabled={!code.trim()}>
            {t('call.find')}
          </Button>
        </Group>
        {error !== undefined && <ErrorPanel error={error} />}
        <div role="status">{found && <Found found={found} open={(endpoint) => once(() => open(endpoint))} />}</div>
      </Stack>
    </form>
  )
}

function Found({ found, open }: { found: CallsFound; open: (endpoint: string) => Promise<void> }) {
  const { t } = useTranslation()
  if (found.calls.length === 0 && found.expected.length === 0) return <Text size="sm">{t('call.notFound')}</Text>
  return (
    <Stack gap="sm">
      {found.expected.length > 0 && (
        <Section title={t('call.expected')}>
          <Text size="sm">{t('call.expectedHint')}</Text>
          {found.expected.map((e) => (
            <Group key={e.endpoint} gap="sm">
              <Text size="sm">
                <b>{e.endpoint_name}</b>, {e.site.name} <span className="quiet">{t(e.heard ? 'call.heard' : 'call.silent')}</span>
              </Text>
              <Button size="xs" variant="default" onClick={() => void open(e.endpoint)}>
                {t('call.open', { name: e.endpoint_name })}
              </Button>
            </Group>
          ))}
        </Section>
      )}
      {found.calls.length > 0 && (
        <Section title={t('call.withCode')}>
          {found.calls.map((c) => (
            <Text size="sm" key={c.id}>
              <Link className="link" to={`/calls/${c.id}`}>
                {grouped(c.code)} · {c.endpoint_name}
              </Link>
              , {c.site.name} · {t(`call.states.${c.state}`)} · <Ago at={c.opened_at} />
            </Text>
          ))}
        </Section>
      )}
    </Stack>
  )
}
