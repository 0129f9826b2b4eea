import { Autocomplete, Button, Group, NativeSelect, NumberInput, Stack, Text, TextInput } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Diagnosis as Row, DiagnosisAction, DiagnosisArgument } from '../api/types'
import { SAFETY_MS } from '../live/events'
import { Confirm } from '../ui/confirm'
import { ErrorPanel } from '../ui/feedback'
import { Section } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'
import { DiagnosisResult } from './DiagnosisResult'
import { type Thing, thingsFor } from './diagnosisFacts'

const TARGETS = ['gateway', 'resolver', 'controller']
const CLASSES = ['silent', 'active', 'disruptive'] as const

/** Has an office computer do something of the closed catalogue, and shows what it finds while it finds it. */
export function Diagnosis({ id, online, operator }: { id: string; online: boolean; operator: boolean }) {
  const { t } = useTranslation()
  const [shown, setShown] = useState<string>()
  const health = useQuery({ queryKey: keys.endpointHealth(id), queryFn: () => calls.endpointHealth(id) })
  const catalogue = useQuery({ queryKey: keys.diagnosisCatalogue, queryFn: calls.diagnosisCatalogue, staleTime: Infinity })
  const history = useQuery({ queryKey: keys.diagnoses(id), queryFn: () => calls.diagnoses(id), refetchInterval: SAFETY_MS })
  // The live stream speaks of every computer; this panel is of one.
  const rows = (history.data?.items ?? []).filter((row) => row.endpoint.id === id)
  const newest = [...rows].sort((a, b) => b.asked_at.localeCompare(a.asked_at))
  const actions = catalogue.data?.items.filter((a) => operator || a.right === 'support')
  return (
    <Section title={t('diagnosis.title')}>
      <Text size="sm" className="quiet">
        {online ? t('diagnosis.lead') : t('diagnosis.offline')}
      </Text>
      {actions && online && <Ask id={id} actions={actions} things={(kind) => thingsFor(kind, health.data)} onAsked={setShown} />}
      {shown && <DiagnosisResult id={shown} />}
      {newest.length > 0 && <History rows={newest.slice(0, 10)} shown={shown} onShow={setShown} />}
    </Section>
  )
}

interface Asking {
  id: string
  actions: DiagnosisAction[]
  things: (kind: string) => Thing[]
  onAsked: (id: string) => void
}

function Ask({ id, actions, things, onAsked }: Asking) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [name, setName] = useState('line')
  const [values, setValues] = useState<Record<string, string | number>>({})
  const [reason, setReason] = useState('')
  const [asking, setAsking] = useState(false)
  const [confirm, setConfirm] = useState(false)
  const [error, setError] = useState<unknown>()
  const action = actions.find((a) => a.name === name)
  if (!action) return null
  const label = (a: DiagnosisAction) => t(`diagnosis.action.${a.name}`, { defaultValue: a.name })
  const given = Object.fromEntries(action.arguments.map((a) => [a.name, values[a.name] ?? usual(a)]))
  const send = async () => {
    setError(undefined)
    const asked = await calls.askDiagnosis(id, action.name, given, reason)
    onAsked(asked.id)
    setReason('')
    await client.invalidateQueries({ queryKey: keys.diagnoses(id) })
  }
  const submit = async () => {
    if (action.class !== 'silent') return setConfirm(true)
    setAsking(true)
    try {
      await send()
    } catch (failure) {
      setError(failure)
    } finally {
      setAsking(false)
    }
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault()
        void submit()
      }}
    >
      <Stack gap="sm">
        <Group align="flex-end" gap="sm">
          <NativeSelect
            label={t('diagnosis.what')}
            value={name}
            onChange={(event) => {
              setName(event.currentTarget.value)
              setValues({})
              setError(undefined)
            }}
            data={[
              { group: t('diagnosis.class.bundle'), items: actions.filter((a) => a.bundle).map((a) => ({ value: a.name, label: label(a) })) },
              ...CLASSES.map((c) => ({
                group: t(`diagnosis.class.${c}`),
                items: actions.filter((a) => !a.bundle && a.class === c).map((a) => ({ value: a.name, label: label(a) })),
              })),
            ]}
          />
          {action.arguments.map((a) => (
            <Field
              key={`${name}.${a.name}`}
              argument={a}
              value={given[a.name]}
              things={things(a.kind)}
              onChange={(v) => setValues((old) => ({ ...old, [a.name]: v }))}
            />
          ))}
          {action.class !== 'silent' && (
            <TextInput
              style={{ flex: '1 1 16rem', maxWidth: '30rem' }}
              label={t('diagnosis.reason')}
              value={reason}
              maxLength={200}
              required
              onChange={(event) => setReason(event.currentTarget.value)}
            />
          )}
          <Button type="submit" loading={asking}>
            {t('diagnosis.run')}
          </Button>
        </Group>
        <Text size="xs" className="quiet">
          {t(`diagnosis.means.${action.class}`)} {action.two_persons ? t('diagnosis.means.two') : ''}{' '}
          {t('diagnosis.within', { seconds: action.deadline_s })}
        </Text>
        {error !== undefined && <ErrorPanel error={error} />}
      </Stack>
      <Confirm
        opened={confirm}
        danger={action.class === 'disruptive'}
        title={label(action)}
        action={t('diagnosis.run')}
        onClose={() => setConfirm(false)}
        onConfirm={send}
      >
        {t(`diagnosis.confirm.${action.class}`)}
      </Confirm>
    </form>
  )
}

function usual(a: DiagnosisArgument): string | number {
  switch (a.kind) {
    case 'number':
      return a.usual ?? a.min ?? 1
    case 'word':
      return a.words[0] ?? ''
    case 'target':
      return 'gateway'
    default:
      return ''
  }
}

interface Filling {
  argument: DiagnosisArgument
  value?: string | number
  things: Thing[]
  onChange: (v: string | number) => void
}

function Field({ argument: a, value, things, onChange }: Filling) {
  const { t } = useTranslation()
  const label = t(`diagnosis.argument.${a.name}`, { defaultValue: a.name })
  if (a.kind === 'number') {
    return (
      <NumberInput
        label={label}
        value={value}
        min={a.min ?? undefined}
        max={a.max ?? undefined}
        allowDecimal={false}
        w={110}
        required
        onChange={onChange}
      />
    )
  }
  if (a.kind === 'word') {
    return <NativeSelect label={label} value={value} data={a.words} onChange={(event) => onChange(event.currentTarget.value)} />
  }
  if (a.kind === 'target') {
    return <Autocomplete label={label} value={String(value)} data={TARGETS} required onChange={onChange} />
  }
  return (
    <Autocomplete
      style={{ flex: '1 1 12rem', maxWidth: '22rem' }}
      label={label}
      value={String(value)}
      data={things.map((thing) => thing.value)}
      renderOption={({ option }) => (
        <Text size="sm">
          {option.value} <span className="quiet">{things.find((thing) => thing.value === option.value)?.name}</span>
        </Text>
      )}
      comboboxProps={{ width: 320, position: 'bottom-start', withinPortal: false }}
      maxLength={253}
      required
      onChange={onChange}
    />
  )
}

function History({ rows, shown, onShow }: { rows: Row[]; shown?: string; onShow: (id: string) => void }) {
  const { t } = useTranslation()
  return (
    <Stack gap={4} component="ul" m={0} p={0} aria-label={t('diagnosis.history')} style={{ listStyle: 'none' }}>
      {rows.map((row) => (
        <Group component="li" key={row.id} gap="sm">
          <Button variant="subtle" size="compact-sm" aria-pressed={row.id === shown} onClick={() => onShow(row.id)}>
            {t(`diagnosis.action.${row.name}`, { defaultValue: row.name })}
          </Button>
          <DiagnosisState row={row} />
          <Text size="xs" className="quiet">
            {row.asked_by} · <Ago at={row.asked_at} />
          </Text>
        </Group>
      ))}
    </Stack>
  )
}

/** Where it is, or how it ended. */
export function DiagnosisState({ row }: { row: Row }) {
  const { t } = useTranslation()
  if (row.verdict) {
    const tone = row.verdict.blame === 'fine' ? 'ok' : row.verdict.blame === 'unknown' ? 'idle' : 'bad'
    return <StatePill group="diagnosis.blame" state={row.verdict.blame} tone={tone} />
  }
  if (row.state !== 'ended') return <StatePill group="diagnosis.state" state={row.state} tone="busy" />
  const outcome = row.outcome ?? 'lost'
  return (
    <>
      <StatePill group="diagnosis.outcome" state={outcome} tone={outcome === 'done' ? 'ok' : 'warn'} />
      {row.code && <Text size="sm">{t(`diagnosis.refused.${row.code}`, { defaultValue: row.code })}</Text>}
    </>
  )
}
