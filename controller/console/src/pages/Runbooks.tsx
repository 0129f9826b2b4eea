import { Button, Group, Radio, Stack, Text, Textarea } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { RunbookInfo, RunbookRun } from '../api/types'
import { language } from '../i18n'
import { SAFETY_MS } from '../live/events'
import { ErrorPanel } from '../ui/feedback'
import { useOnce } from '../ui/once'
import { Section } from '../ui/page'
import { StatePill, type Tone } from '../ui/state'
import { Exact } from '../ui/time'

export type RunbookSubject = { incident: string } | { call: string }

const tones: Record<RunbookRun['state'], Tone> = { running: 'busy', fixed: 'ok', answered: 'warn', left: 'idle' }

/** What to ask on the telephone, step by step, and what was answered. */
export function Runbooks({ subject, causes, checks }: { subject: RunbookSubject; causes: string[]; checks: string[] }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const id = 'incident' in subject ? subject.incident : subject.call
  const books = useQuery({ queryKey: keys.runbooks, queryFn: calls.runbooks })
  const runs = useQuery({ queryKey: keys.runbookRuns(id), queryFn: () => calls.runbookRuns(subject), refetchInterval: SAFETY_MS })
  const [error, setError] = useState<unknown>()
  const [starting, once] = useOnce()
  const again = () => client.invalidateQueries({ queryKey: keys.runbookRuns(id) })
  const start = async (runbook: string) => {
    try {
      await calls.startRunbook(runbook, subject)
      setError(undefined)
    } catch (failure) {
      setError(failure)
    }
    await again()
  }
  const fits = (b: RunbookInfo) =>
    b.causes.some((c) => causes.includes(c)) && (!b.checks?.length || b.checks.some((c) => checks.includes(c)))
  const running = new Set(runs.data?.items.filter((r) => r.state === 'running').map((r) => r.runbook.id))
  const offered = (books.data?.items ?? [])
    .filter((b) => fits(b) && !running.has(b.id))
    .sort((a, b) => rate(b) - rate(a))
  return (
    <Section title={t('runbook.title')}>
      {offered.length === 0 && (runs.data?.items.length ?? 0) === 0 && <Text size="sm">{t('runbook.none')}</Text>}
      <Group gap="sm">
        {offered.map((b) => (
          <Button key={b.id} variant="default" size="sm" disabled={starting} onClick={() => void once(() => start(b.id))}>
            {b.title[language()]}
            {b.used > 0 && <span className="quiet">&nbsp;{t('runbook.rate', { fixed: b.fixed, used: b.used })}</span>}
          </Button>
        ))}
      </Group>
      {error !== undefined && <ErrorPanel error={error} />}
      {runs.data?.items.map((run) => <Run key={run.id} run={run} again={again} />)}
    </Section>
  )
}

/** Those that helped more often stand first; one that was never used, in the middle. */
const rate = (b: RunbookInfo) => (b.fixed + 1) / (b.used + 2)

function Run({ run, again }: { run: RunbookRun; again: () => Promise<void> }) {
  const { t } = useTranslation()
  const lang = language()
  const book = run.runbook
  const [error, setError] = useState<unknown>()
  const [busy, once] = useOnce()
  const leave = async () => {
    try {
      await calls.leaveRunbook(run.id)
    } catch (failure) {
      setError(failure)
    }
    await again()
  }
  const turn = book.steps.find((s) => s.id === run.turn)
  return (
    <Stack gap="sm" className="runbook" p="md" style={{ border: '1px solid var(--mantine-color-default-border)', borderRadius: 8 }}>
      <Group gap="sm">
        <StatePill group="runbook.states" state={run.state} tone={tones[run.state]} />
        <Text fw={600}>{book.title[lang]}</Text>
        <Text size="sm" className="quiet">
          {run.started_by} · <Exact at={run.started_at} />
        </Text>
      </Group>
      <Stack component="ol" gap={6} m={0} pl="lg">
        {run.answers.map((given, i) => {
          const step = book.steps.find((s) => s.id === given.step)
          const said = step?.answers?.find((a) => a.id === given.answer)?.say[lang]
          return (
            <Text component="li" size="sm" key={i} style={{ whiteSpace: 'pre-wrap', overflowWrap: 'anywhere' }}>
              {step?.ask[lang] ?? given.step} <b>{[said, given.note].filter(Boolean).join(' · ')}</b>
            </Text>
          )
        })}
      </Stack>
      {turn && <Question key={turn.id} run={run} step={turn} again={again} />}
      {run.state === 'answered' && (
        <>
          <Text size="sm">{t('runbook.stillFailing', { result: book.result[lang] })}</Text>
          {book.escalate && (
            <Text size="sm">
              <b>{t(`incident.parties.${book.escalate.party}`)}</b>: {book.escalate.say[lang]}
            </Text>
          )}
        </>
      )}
      {run.state === 'fixed' && <Text size="sm">{t('runbook.fixed', { result: book.result[lang] })}</Text>}
      {error !== undefined && <ErrorPanel error={error} />}
      {run.state === 'running' && (
        <Group justify="flex-end">
          <Button variant="subtle" size="xs" loading={busy} onClick={() => void once(leave)}>
            {t('runbook.leave')}
          </Button>
        </Group>
      )}
    </Stack>
  )
}

function Question({ run, step, again }: { run: RunbookRun; step: RunbookRun['runbook']['steps'][number]; again: () => Promise<void> }) {
  const { t } = useTranslation()
  const lang = language()
  const answers = step.answers ?? []
  const actions = step.actions ?? []
  const [answer, setAnswer] = useState('')
  const [note, setNote] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, once] = useOnce()
  const send = async () => {
    try {
      await calls.answerRunbook(run.id, { step: step.id, answer, note })
      setError(undefined)
    } catch (failure) {
      setError(failure)
    }
    await again()
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault()
        void once(send)
      }}
    >
      <Stack gap="sm">
        {answers.length > 0 ? (
          <Radio.Group label={step.ask[lang]} value={answer} onChange={setAnswer}>
            <Stack gap={6} mt={6}>
              {answers.map((a) => (
                <Radio key={a.id} value={a.id} label={a.say[lang]} />
              ))}
            </Stack>
          </Radio.Group>
        ) : (
          <Text fw={600}>{step.ask[lang]}</Text>
        )}
        {step.expect && (
          <Text size="sm" className="quiet">
            {t('runbook.expect')}: {step.expect[lang]}
          </Text>
        )}
        {actions.length > 0 && (
          <Text size="sm" className="quiet">
            {t('runbook.actions')}: {actions.map((a) => t(`runbook.action.${a}`, { defaultValue: a })).join(', ')}
          </Text>
        )}
        <Textarea
          label={t(answers.length > 0 ? 'runbook.note' : 'runbook.said')}
          autosize
          minRows={1}
          maxLength={2000}
          value={note}
          onChange={(event) => setNote(event.currentTarget.value)}
        />
        {error !== undefined && <ErrorPanel error={error} />}
        <Group justify="flex-end">
          <Button type="submit" loading={busy} disabled={answers.length > 0 ? !answer : !note.trim()}>
            {t('runbook.next')}
          </Button>
        </Group>
      </Stack>
    </form>
  )
}
