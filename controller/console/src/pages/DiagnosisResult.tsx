import { Button, Group, Stack, Text } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { DiagnosisDetail, DiagnosisStep } from '../api/types'
import { SAFETY_MS } from '../live/events'
import { ErrorPanel } from '../ui/feedback'
import { StatePill } from '../ui/state'
import { DiagnosisState } from './Diagnosis'
import { useFactText } from './diagnosisFacts'

/** One diagnosis: how far it is, its verdict, and the evidence step by step. */
export function DiagnosisResult({ id }: { id: string }) {
  const { t } = useTranslation()
  const query = useQuery({
    queryKey: keys.diagnosis(id),
    queryFn: () => calls.diagnosis(id),
    refetchInterval: (q) => (q.state.data?.state === 'ended' ? false : SAFETY_MS),
  })
  const d = query.data
  if (query.error) return <ErrorPanel error={query.error} onRetry={() => void query.refetch()} />
  if (!d) return null
  const running = d.state !== 'ended'
  return (
    <Stack gap="sm" className="card" p="md" data-testid="diagnosis">
      <Group justify="space-between">
        <Group gap="sm" role="status">
          <Text fw={600}>{t(`diagnosis.action.${d.name}`, { defaultValue: d.name })}</Text>
          <DiagnosisState row={d} />
          {running && d.progress && <Text size="sm">{d.progress}</Text>}
        </Group>
        <Buttons d={d} />
      </Group>
      {d.state === 'asked' && (
        <Text size="sm">{d.may_agree ? t('diagnosis.agreeAsk', { who: d.asked_by, reason: d.reason }) : t('diagnosis.agreeWait')}</Text>
      )}
      {d.state === 'asking' && <Text size="sm">{t('diagnosis.askingNow', { reason: d.reason })}</Text>}
      {d.verdict && <Text size="sm">{t(`diagnosis.verdict.${d.verdict.code}`, { defaultValue: t(`diagnosis.code.${d.verdict.code}`, { defaultValue: d.verdict.code }) })}</Text>}
      {d.steps
        .filter((s) => s.state || s.text)
        .map((s) => (
          <Step key={s.step} step={s} evidence={d.verdict?.evidence.includes(s.step) && d.verdict.blame !== 'fine'} />
        ))}
    </Stack>
  )
}

function Buttons({ d }: { d: DiagnosisDetail }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  if (d.state === 'ended') return null
  const act = (call: (id: string) => Promise<unknown>) => async () => {
    setBusy(true)
    setError(undefined)
    try {
      await call(d.id)
    } catch (failure) {
      setError(failure)
    } finally {
      setBusy(false)
      await client.invalidateQueries({ queryKey: keys.diagnosis(d.id) })
      await client.invalidateQueries({ queryKey: ['diagnoses'] })
    }
  }
  return (
    <Group gap="xs">
      {error !== undefined && <ErrorPanel error={error} />}
      {d.may_agree && (
        <>
          <Button size="compact-sm" loading={busy} onClick={act(calls.approveDiagnosis)}>
            {t('diagnosis.agree')}
          </Button>
          <Button size="compact-sm" variant="default" loading={busy} onClick={act(calls.denyDiagnosis)}>
            {t('diagnosis.disagree')}
          </Button>
        </>
      )}
      {!d.may_agree && (
        <Button size="compact-sm" variant="default" loading={busy} disabled={d.cancelled} onClick={act(calls.cancelDiagnosis)}>
          {d.cancelled ? t('diagnosis.stopping') : t('diagnosis.stop')}
        </Button>
      )}
    </Group>
  )
}

function Step({ step: s, evidence }: { step: DiagnosisStep; evidence?: boolean }) {
  const { t } = useTranslation()
  const fact = useFactText()
  const to = Object.values(s.arguments).join(' ')
  const name = t(`diagnosis.action.${s.action}`, { defaultValue: s.action })
  return (
    <div style={evidence ? { borderInlineStart: '3px solid var(--mantine-color-red-7)', paddingInlineStart: 8 } : undefined}>
      <Group gap="sm">
        {s.state && <StatePill group="endpoint.verdict" state={s.state} />}
        <Text size="sm">
          <b>
            {name} {to}
          </b>
          {s.text_code ? ` · ${t(`diagnosis.code.${s.text_code}`, { defaultValue: s.text_code })}` : ''}
        </Text>
      </Group>
      {Object.keys(s.facts).length > 0 && (
        <Text size="xs" className="quiet" style={{ overflowWrap: 'anywhere' }}>
          {Object.entries(s.facts)
            .map(([name, value]) => fact(name, value))
            .join(' · ')}
        </Text>
      )}
      {s.text && (
        <pre tabIndex={0} aria-label={t('diagnosis.output', { name })} style={{ maxHeight: 240, overflow: 'auto', margin: '4px 0 0', fontSize: 12 }}>
          {s.text}
        </pre>
      )}
      {s.cut && (
        <Text size="xs" className="quiet">
          {t('diagnosis.cut')}
        </Text>
      )}
    </div>
  )
}
