import { Button, Group, Menu, Modal, MultiSelect, Select, Stack, Switch, TextInput, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Notification, NotifyRule, NotifyRuleBody } from '../api/types'
import { Confirm } from '../ui/confirm'
import { problemText } from '../ui/errors'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { done, refused } from '../ui/notify'
import { Page } from '../ui/page'
import { SiteSelect } from '../ui/SiteSelect'
import { StatePill } from '../ui/state'
import { DataTable, Two } from '../ui/table'
import { Ago } from '../ui/time'
import { CAUSES } from './incidentText'

const BLANK: NotifyRuleBody = {
  name: '', enabled: true, channel: 'email', target: '', severity: 'crit', causes: [], site_code: null, at_times: 'always', ends: true,
}

/** Who is told of incidents, by which way, and what became of it. */
export function NotifyPage() {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [edited, setEdited] = useState<NotifyRule | 'new'>()
  const [dropped, setDropped] = useState<NotifyRule>()
  const rules = useQuery({ queryKey: keys.notifyRules, queryFn: calls.notifyRules })
  const log = useQuery({ queryKey: keys.notifyLog, queryFn: calls.notifyLog, refetchInterval: 5000 })
  const names = useMemo(() => new Map(rules.data?.items.map((r) => [r.id, r.name])), [rules.data])
  const tryOut = async (rule: NotifyRule) => {
    try {
      await calls.testNotifyRule(rule.id)
      done(t('notify.testing'))
    } catch (error) {
      refused(problemText(t, error))
    }
    await client.invalidateQueries({ queryKey: keys.notifyLog })
  }
  const columns: ColumnDef<NotifyRule>[] = [
    {
      id: 'name',
      header: t('notify.name'),
      accessorFn: (row) => row.name,
      cell: ({ row }) => <Two main={row.original.name} sub={row.original.target} />,
    },
    {
      id: 'channel',
      header: t('notify.channel'),
      accessorFn: (row) => row.channel,
      meta: { width: 120, from: 'sm' },
      cell: ({ row }) => t(`notify.channels.${row.original.channel}`),
    },
    {
      id: 'what',
      header: t('notify.what'),
      enableSorting: false,
      meta: { from: 'md' },
      cell: ({ row }) => (
        <Two
          main={t(`notify.least.${row.original.severity}`)}
          sub={[row.original.site_code, ...(row.original.causes ?? []).map((c) => t(`incident.causes.${c}`))].filter(Boolean).join(', ')}
        />
      ),
    },
    {
      id: 'times',
      header: t('notify.times'),
      accessorFn: (row) => row.at_times,
      meta: { width: 190, from: 'lg' },
      cell: ({ row }) => t(`notify.when.${row.original.at_times}`),
    },
    {
      id: 'state',
      header: t('common.state'),
      accessorFn: (row) => row.enabled,
      meta: { width: 110 },
      cell: ({ row }) => <StatePill group="notify.states" state={row.original.enabled ? 'on' : 'off'} tone={row.original.enabled ? 'ok' : 'idle'} />,
    },
    {
      id: 'actions',
      header: t('common.actions'),
      enableSorting: false,
      meta: { width: 100, narrow: 90 },
      cell: ({ row }) => (
        <Menu position="bottom-end">
          <Menu.Target>
            <Button size="compact-sm" variant="subtle" aria-label={`${t('common.actions')}: ${row.original.name}`}>
              <Icon name="more" />
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item onClick={() => void tryOut(row.original)}>{t('notify.test')}</Menu.Item>
            <Menu.Item onClick={() => setEdited(row.original)}>{t('notify.change')}</Menu.Item>
            <Menu.Item onClick={() => setDropped(row.original)}>{t('notify.drop')}</Menu.Item>
          </Menu.Dropdown>
        </Menu>
      ),
    },
  ]
  return (
    <Page
      title={t('nav.notify')}
      lead={t('notify.lead')}
      actions={
        <Button leftSection={<Icon name="plus" />} onClick={() => setEdited('new')}>
          {t('notify.add')}
        </Button>
      }
    >
      <Answer query={rules}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('notify.none')}>{t('notify.noneHint')}</Empty>
          ) : (
            <DataTable label={t('nav.notify')} rows={list.items} columns={columns} rowId={(row) => row.id} initialSort={[{ id: 'name', desc: false }]} />
          )
        }
      </Answer>
      <Title order={2} fz={18}>
        {t('notify.log')}
      </Title>
      {/* One sign of loading for a page: the rules' own. */}
      {!log.isPending && (
        <Answer query={log}>{(list) => (list.items.length === 0 ? <Empty title={t('notify.logNone')} /> : <Log rows={list.items} names={names} />)}</Answer>
      )}
      {edited && <RuleForm rule={edited === 'new' ? undefined : edited} onClose={() => setEdited(undefined)} />}
      <Confirm
        opened={dropped !== undefined}
        danger
        title={t('notify.drop')}
        action={t('notify.drop')}
        onClose={() => setDropped(undefined)}
        onConfirm={async () => {
          if (dropped) await calls.dropNotifyRule(dropped.id)
          await client.invalidateQueries({ queryKey: keys.notifyRules })
          await client.invalidateQueries({ queryKey: keys.notifyLog })
        }}
      >
        {t('notify.dropAsk', { name: dropped?.name ?? '' })}
      </Confirm>
    </Page>
  )
}

function outcome(n: Notification): 'sent' | 'waiting' | 'again' | 'givenUp' {
  if (n.sent_at) return 'sent'
  if (!n.due_at) return 'givenUp'
  return n.error ? 'again' : 'waiting'
}

const TONES = { sent: 'ok', waiting: 'busy', again: 'warn', givenUp: 'bad' } as const

function Log({ rows, names }: { rows: Notification[]; names: Map<string, string> }) {
  const { t } = useTranslation()
  const columns: ColumnDef<Notification>[] = [
    {
      id: 'rule',
      header: t('notify.name'),
      accessorFn: (row) => names.get(row.rule) ?? '',
      cell: ({ row }) => <Two main={names.get(row.original.rule) ?? '—'} sub={t(`notify.occasions.${row.original.occasion}`)} />,
    },
    {
      id: 'outcome',
      header: t('notify.outcome'),
      accessorFn: outcome,
      meta: { width: 150 },
      cell: ({ row }) => <StatePill group="notify.outcomes" state={outcome(row.original)} tone={TONES[outcome(row.original)]} />,
    },
    {
      id: 'error',
      header: t('notify.said'),
      enableSorting: false,
      meta: { from: 'md' },
      cell: ({ row }) => <Two main={row.original.error ?? ''} />,
    },
    {
      id: 'at',
      header: t('notify.at'),
      accessorFn: (row) => row.created_at,
      meta: { width: 150, from: 'sm' },
      cell: ({ row }) => <Ago at={row.original.created_at} />,
    },
  ]
  return <DataTable label={t('notify.log')} rows={rows} columns={columns} rowId={(row) => row.id} initialSort={[{ id: 'at', desc: true }]} height="420px" />
}

function RuleForm({ rule, onClose }: { rule: NotifyRule | undefined; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [form, setForm] = useState<NotifyRuleBody>(() => {
    if (!rule) return BLANK
    const { id: _, ...body } = rule
    return body
  })
  const [error, setError] = useState<unknown>()
  const set = (change: Partial<NotifyRuleBody>) => setForm((old) => ({ ...old, ...change }))
  const submit = async () => {
    try {
      await (rule ? calls.changeNotifyRule(rule.id, form) : calls.createNotifyRule(form))
      onClose()
      await client.invalidateQueries({ queryKey: keys.notifyRules })
    } catch (failure) {
      setError(failure)
    }
  }
  const options = (prefix: string, values: readonly string[]) => values.map((value) => ({ value, label: t(`${prefix}.${value}`) }))
  return (
    <Modal opened onClose={onClose} title={rule ? t('notify.change') : t('notify.add')} closeButtonProps={{ 'aria-label': t('common.close') }}>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void submit()
        }}
      >
        <Stack gap="sm">
          <TextInput label={t('notify.name')} required value={form.name} onChange={(e) => set({ name: e.currentTarget.value })} data-autofocus />
          <Select
            label={t('notify.channel')}
            data={options('notify.channels', ['email', 'sms', 'webhook'])}
            value={form.channel}
            onChange={(value) => value && set({ channel: value as NotifyRuleBody['channel'] })}
            allowDeselect={false}
          />
          <TextInput
            label={t('notify.target')}
            description={t(`notify.targetHint.${form.channel}`)}
            required
            value={form.target}
            onChange={(e) => set({ target: e.currentTarget.value })}
          />
          <Select
            label={t('notify.what')}
            data={options('notify.least', ['crit', 'warn'])}
            value={form.severity}
            onChange={(value) => value && set({ severity: value as NotifyRuleBody['severity'] })}
            allowDeselect={false}
          />
          <MultiSelect
            label={t('notify.causes')}
            placeholder={form.causes?.length ? '' : t('incident.anyCause')}
            data={options('incident.causes', CAUSES)}
            value={form.causes ?? []}
            onChange={(causes) => set({ causes: causes as NotifyRuleBody['causes'] })}
          />
          <SiteSelect label={t('notify.site')} level="" value={form.site_code ?? ''} onChange={(code) => set({ site_code: code || null })} />
          <Select
            label={t('notify.times')}
            data={options('notify.when', ['always', 'office', 'on_call'])}
            value={form.at_times}
            onChange={(value) => value && set({ at_times: value as NotifyRuleBody['at_times'] })}
            allowDeselect={false}
          />
          <Switch label={t('notify.ends')} checked={form.ends} onChange={(e) => set({ ends: e.currentTarget.checked })} />
          <Switch label={t('notify.enabled')} checked={form.enabled} onChange={(e) => set({ enabled: e.currentTarget.checked })} />
          {error !== undefined && <ErrorPanel error={error} title={t('notify.notKept')} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t('common.cancel')}
            </Button>
            <Button type="submit">{t('notify.keep')}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
