import { Anchor, Button, Group, Modal, SimpleGrid, Stack, Text, Textarea } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { CallDetail, CallStep, Party } from '../api/types'
import { language } from '../i18n'
import { SAFETY_MS } from '../live/events'
import { problemText } from '../ui/errors'
import { Answer, ErrorPanel } from '../ui/feedback'
import { refused } from '../ui/notify'
import { useOnce } from '../ui/once'
import { Facts, Page, Section } from '../ui/page'
import { sentence } from '../ui/sentence'
import { StatePill } from '../ui/state'
import { Ago, Exact } from '../ui/time'
import { callTones, grouped } from './callText'
import { useIncidentText } from './incidentText'
import { NewNote, PartyFields } from './handling'
import { Runbooks } from './Runbooks'

/** What a desk tells of its computer; nothing in it is certain to be there. */
interface Snapshot {
  verdict?: string
  findings?: { check: string; state: string; code: string; params?: Record<string, string> }[]
  cause?: string
  phase?: string
  shown?: string[]
  agent_version?: string
}

export function CallPage() {
  const { id = '' } = useParams()
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.call(id), queryFn: () => calls.supportCall(id), refetchInterval: SAFETY_MS })
  return (
    <Page
      title={query.data ? t('call.title', { code: grouped(query.data.code), name: query.data.endpoint_name }) : t('call.one')}
      lead={
        <Anchor component={Link} to="/calls" className="link">
          ← {t('nav.calls')}
        </Anchor>
      }
      actions={query.data && <Steps call={query.data} />}
    >
      <Answer query={query}>{(call) => <Detail call={call} />}</Answer>
    </Page>
  )
}

function Detail({ call }: { call: CallDetail }) {
  const { t } = useTranslation()
  const snapshot = call.snapshot as Snapshot | null | undefined
  return (
    <>
      <Stack className="card" p="lg" gap="xs">
        <Group gap="sm">
          <StatePill group="call.states" state={call.state} tone={callTones[call.state]} />
          <Text size="sm">
            {t('call.opened')} <Exact at={call.opened_at} /> (<Ago at={call.opened_at} />)
          </Text>
        </Group>
        {!call.arrived_at && <Text size="sm">{t('call.notArrived')}</Text>}
      </Stack>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Section title={t('call.where')}>
          <Facts
            rows={[
              [
                t('call.computer'),
                <Link key="e" className="link" to={`/endpoints/${call.endpoint}`}>
                  {call.endpoint_name}
                </Link>,
              ],
              [t('site.one'), [call.site.name, call.site.district, call.site.code].filter(Boolean).join(', ')],
              [
                t('call.session'),
                call.session ? (
                  <Link key="s" className="link" to={`/sessions?session=${call.session}`}>
                    {call.session.slice(-8)}
                  </Link>
                ) : null,
              ],
              [t('call.madeAt'), call.made_at ? <Exact key="m" at={call.made_at} /> : null],
            ]}
          />
        </Section>
        <Section title={t('incident.who')}>
          <Facts
            rows={[
              [t('call.takenBy'), call.taken_by],
              [t('incident.party'), call.party ? t(`incident.parties.${call.party}`) : null],
              [t('incident.answerBy'), call.answer_by ? <Exact key="a" at={call.answer_by} /> : null],
            ]}
          />
        </Section>
        <Section title={t('call.saw')}>
          {snapshot ? (
            <Facts
              rows={[
                [t('call.phase'), t(`call.phases.${snapshot.phase}`, { defaultValue: snapshot.phase ?? '—' })],
                [t('call.cause'), t(`call.causes.${snapshot.cause}`, { defaultValue: snapshot.cause ?? '—' })],
                [t('call.shown'), snapshot.shown?.length ? snapshot.shown.join(', ') : null],
                [t('endpoint.agent'), snapshot.agent_version],
              ]}
            />
          ) : (
            <Text size="sm">{t('call.noSnapshot')}</Text>
          )}
        </Section>
        <Incidents call={call} />
      </SimpleGrid>
      {snapshot && <Findings snapshot={snapshot} />}
      <Runbooks subject={{ call: call.id }} causes={causesOf(call, snapshot)} checks={badChecks(snapshot)} />
      <Section title={t('incident.course')}>
        <Stack gap={6}>
          {call.events.map((event, i) => {
            const detail = event.detail as Record<string, unknown>
            const party = typeof detail['party'] === 'string' ? t(`incident.parties.${detail['party']}`) : ''
            return (
              <Text size="sm" key={i} style={{ overflowWrap: 'anywhere', whiteSpace: 'pre-wrap' }}>
                <Exact at={event.at} /> · <b>{t(`call.events.${event.kind}`, { defaultValue: event.kind })}</b>
                {['desk', 'system'].includes(event.actor) ? '' : ` · ${event.actor}`}
                {party ? ` · ${party}` : ''}
                {event.kind === 'runbook' ? ` · ${runbookSays(detail, t)}` : ''}
                {typeof detail['text'] === 'string' && detail['text'] ? ` · ${detail['text']}` : ''}
              </Text>
            )
          })}
        </Stack>
      </Section>
      <NewNote save={(text) => calls.noteCall(call.id, text)} shown={keys.call(call.id)} />
    </>
  )
}

/** What the desk's own line says, as a cause of the rules. */
const AS_CAUSE: Record<string, string> = {
  cable: 'lan', router: 'site_line', carrier: 'site_line', data_centre: 'data_centre', slow: 'line_degraded', certificate: 'computer',
}

const badChecks = (snapshot: Snapshot | null | undefined) =>
  (snapshot?.findings ?? []).filter((f) => f.state === 'warn' || f.state === 'crit').map((f) => f.check)

/** Causes a runbook may be for: of its incident, of the desk's line, of what the computer found. */
function causesOf(call: CallDetail, snapshot: Snapshot | null | undefined): string[] {
  const own = call.incidents.filter((i) => i.id === call.incident).map((i) => i.cause as string)
  const line = AS_CAUSE[snapshot?.cause ?? '']
  const found = badChecks(snapshot).length > 0 ? ['computer', 'peripheral'] : []
  return [...own, ...(line ? [line] : []), ...found, ...(snapshot?.phase === 'waiting' ? ['desktop'] : [])]
}

function runbookSays(detail: Record<string, unknown>, t: (key: string) => string): string {
  const title = detail['title'] as { vi: string; en: string } | undefined
  return [title?.[language()], t(`runbook.states.${String(detail['state'])}`)].filter(Boolean).join(' · ')
}

function Findings({ snapshot }: { snapshot: Snapshot }) {
  const { t } = useTranslation()
  const bad = (snapshot.findings ?? []).filter((f) => f.state !== 'ok' && f.state !== 'unknown')
  return (
    <Section title={t('call.found')}>
      {bad.length === 0 ? (
        <Text size="sm">{t('call.nothingFound', { count: snapshot.findings?.length ?? 0 })}</Text>
      ) : (
        <Stack component="ul" gap={6} m={0} pl="lg">
          {bad.map((f, i) => {
            const says = sentence(f.code, f.params ?? {}, language())
            return (
              <Text component="li" size="sm" key={i}>
                <StatePill group="endpoint.verdict" state={f.state} /> <b>{t(`endpoint.check.${f.check}`, { defaultValue: f.check })}</b> ·{' '}
                {says.what} {says.next && <span className="quiet">→ {says.next}</span>}
              </Text>
            )
          })}
        </Stack>
      )}
    </Section>
  )
}

/** What is wrong at the site now, and which of it the call belongs to. */
function Incidents({ call }: { call: CallDetail }) {
  const { t } = useTranslation()
  const words = useIncidentText()
  const client = useQueryClient()
  const attach = async (incident: string | null) => {
    try {
      await calls.attachCall(call.id, incident)
    } catch (error) {
      refused(problemText(t, error))
    }
    await client.invalidateQueries({ queryKey: keys.call(call.id) })
  }
  return (
    <Section title={t('call.incidents')}>
      {call.incidents.length === 0 && <Text size="sm">{t('call.noIncident')}</Text>}
      {call.incidents.map((i) => {
        const own = i.id === call.incident
        return (
          <Group key={i.id} gap="sm" wrap="nowrap" align="flex-start">
            <div style={{ flex: 1 }}>
              <Text size="sm">
                <Link className="link" to={`/incidents/${i.id}`}>
                  {words.cause(i)}
                </Link>{' '}
                <span className="quiet">{words.scope(i)}</span>
              </Text>
              <Text size="sm" className="quiet">
                {words.sentence(i.evidence[0])}
              </Text>
            </div>
            <Button size="xs" variant={own ? 'filled' : 'default'} aria-pressed={own} onClick={() => void attach(own ? null : i.id)}>
              {t(own ? 'call.detach' : 'call.attach')}
            </Button>
          </Group>
        )
      })}
    </Section>
  )
}

/** What may be done with a call next. */
function Steps({ call }: { call: CallDetail }) {
  const { t } = useTranslation()
  const [asked, setAsked] = useState<'hand_over' | 'solve' | 'close'>()
  const client = useQueryClient()
  const [busy, once] = useOnce()
  const take = async () => {
    try {
      await calls.stepCall(call.id, { do: 'take' })
    } catch (error) {
      refused(problemText(t, error))
    }
    await client.invalidateQueries({ queryKey: keys.call(call.id) })
  }
  if (call.state === 'closed') return null
  const solved = call.state === 'solved'
  return (
    <>
      {call.state !== 'taken' && <Button loading={busy} onClick={() => void once(take)}>{t(solved ? 'call.takeAgain' : 'call.take')}</Button>}
      {!solved && (
        <>
          <Button variant={call.state === 'taken' ? 'filled' : 'default'} onClick={() => setAsked('solve')}>
            {t('call.solve')}
          </Button>
          <Button variant="default" onClick={() => setAsked('hand_over')}>
            {t('incident.handOver')}
          </Button>
        </>
      )}
      <Button variant="default" onClick={() => setAsked('close')}>
        {t('call.close')}
      </Button>
      {asked && <StepForm call={call} step={asked} onClose={() => setAsked(undefined)} />}
    </>
  )
}

function StepForm({ call, step, onClose }: { call: CallDetail; step: 'hand_over' | 'solve' | 'close'; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [party, setParty] = useState<Party>('carrier')
  const [minutes, setMinutes] = useState(240)
  const [text, setText] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, once] = useOnce()
  const title = t(step === 'hand_over' ? 'incident.handOver' : `call.${step}`)
  const submit = async () => {
    const body: CallStep = step === 'hand_over' ? { do: step, party, answer_minutes: minutes, text } : { do: step, text }
    try {
      await calls.stepCall(call.id, body)
      onClose()
      await client.invalidateQueries({ queryKey: keys.call(call.id) })
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <Modal opened onClose={onClose} title={title} closeButtonProps={{ 'aria-label': t('common.close') }}>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void once(submit)
        }}
      >
        <Stack gap="md">
          {step === 'hand_over' && <PartyFields party={party} minutes={minutes} onParty={setParty} onMinutes={setMinutes} />}
          <Textarea
            label={t(`call.ask.${step}`)}
            autosize
            minRows={2}
            maxLength={2000}
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            data-autofocus
          />
          {error !== undefined && <ErrorPanel error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t('common.cancel')}
            </Button>
            <Button type="submit" loading={busy}>
              {title}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
