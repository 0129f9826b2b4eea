import { Anchor, Button, Group, Modal, SimpleGrid, Stack, Text, Textarea } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Evidence, IncidentDetail, Party } from '../api/types'
import { Answer, ErrorPanel } from '../ui/feedback'
import { problemText } from '../ui/errors'
import { done, refused } from '../ui/notify'
import { Facts, Page, Section } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago, Exact, useNow } from '../ui/time'
import { language } from '../i18n'
import { SAFETY_MS } from '../live/events'
import { useOnce } from '../ui/once'
import { NewNote, PartyFields } from './handling'
import { useIncidentText } from './incidentText'
import { Runbooks } from './Runbooks'

export function IncidentPage() {
  const { id = '' } = useParams()
  const { t } = useTranslation()
  const words = useIncidentText()
  const query = useQuery({ queryKey: keys.incident(id), queryFn: () => calls.incident(id), refetchInterval: SAFETY_MS })
  return (
    <Page
      title={query.data ? words.cause(query.data) : t('incident.one')}
      lead={
        <Anchor component={Link} to="/incidents" className="link">
          ← {t('nav.incidents')}
        </Anchor>
      }
      actions={query.data && <Actions incident={query.data} />}
    >
      <Answer query={query}>{(incident) => <Detail incident={incident} />}</Answer>
    </Page>
  )
}

function Sentences({ of }: { of: Evidence[] }) {
  const words = useIncidentText()
  return (
    <Stack component="ul" gap={6} m={0} pl="lg">
      {of.map((e, i) => (
        <Text component="li" size="sm" key={i}>
          {words.sentence(e)}
        </Text>
      ))}
    </Stack>
  )
}

function Detail({ incident }: { incident: IncidentDetail }) {
  const { t } = useTranslation()
  const words = useIncidentText()
  const now = useNow(15_000)
  const late = incident.open && incident.answer_by != null && new Date(incident.answer_by) < now
  return (
    <>
      <Stack className="card" p="lg" gap="xs">
        <Group gap="sm">
          {incident.open ? (
            <StatePill group="incident.severities" state={incident.severity} />
          ) : (
            <StatePill group="incident.states" state="over" tone="idle" />
          )}
          {incident.flapping && <StatePill group="incident.states" state="flapping" tone="warn" />}
          <Text size="sm">
            {t('incident.confidence')}: <b>{t(`incident.confidences.${incident.confidence}`)}</b>
          </Text>
          <Text size="sm">
            {t('incident.since')} <Exact at={incident.opened_at} /> (<Ago at={incident.opened_at} />)
            {incident.over_at && (
              <>
                {' '}
                {t('incident.until')} <Exact at={incident.over_at} />
              </>
            )}
          </Text>
        </Group>
        <Text fw={600}>{words.scope(incident)}</Text>
        <Text size="sm">{t(`incident.first.${incident.cause}`)}</Text>
        {incident.first_cause !== incident.cause && (
          <Text size="sm" className="quiet">
            {t('incident.judgedAgain', {
              then: t(`incident.causes.${incident.first_cause}`),
              now: t(`incident.causes.${incident.cause}`),
            })}
          </Text>
        )}
        <Anchor component={Link} className="link" size="sm" to={`/time-travel?incident=${incident.id}&at=${encodeURIComponent(incident.opened_at)}`}>
          {t('then.link')}
        </Anchor>
        {incident.merged_into && (
          <Anchor component={Link} className="link" to={`/incidents/${incident.merged_into}`}>
            {t('incident.mergedInto')}
          </Anchor>
        )}
      </Stack>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Section title={t('incident.evidence')}>
          <Sentences of={incident.evidence} />
          {incident.doubts.length > 0 && (
            <>
              <Text size="sm" fw={600}>
                {t('incident.doubts')}
              </Text>
              <Sentences of={incident.doubts} />
            </>
          )}
        </Section>
        <Section title={t('incident.who')}>
          <Facts
            rows={[
              [t('incident.party'), t(`incident.parties.${incident.party}`)],
              [t('incident.acknowledgedBy'), incident.acknowledged_by],
              [t('incident.handedBy'), incident.handed_by],
              [
                t('incident.answerBy'),
                incident.answer_by ? (
                  <span>
                    <Exact at={incident.answer_by} /> {late && <StatePill group="incident.states" state="late" tone="bad" />}
                  </span>
                ) : null,
              ],
            ]}
          />
        </Section>
        {incident.sites.length > 0 && (
          <Section title={t('incident.sites', { count: incident.sites.length })}>
            <div style={{ maxHeight: 260, overflow: 'auto' }} tabIndex={0} role="region" aria-label={t('nav.sites')}>
              <Stack component="ul" gap={4} m={0} pl="lg">
                {incident.sites.map((s) => (
                  <Text component="li" size="sm" key={s.code}>
                    {s.name}
                    {s.district ? `, ${s.district}` : ''} <span className="quiet">{s.code}</span>
                  </Text>
                ))}
              </Stack>
            </div>
          </Section>
        )}
        {incident.endpoints.length > 0 && (
          <Section title={t('incident.endpoints', { count: incident.endpoints.length })}>
            <div style={{ maxHeight: 260, overflow: 'auto' }} tabIndex={0} role="region" aria-label={t('nav.endpoints')}>
              <Stack component="ul" gap={4} m={0} pl="lg">
                {incident.endpoints.map((id) => (
                  <Text component="li" size="sm" key={id}>
                    <Link className="link" to={`/endpoints/${id}`}>
                      {words.named.get(id)?.name ?? id}
                    </Link>{' '}
                    <span className="quiet">{words.named.get(id)?.site.name}</span>
                  </Text>
                ))}
              </Stack>
            </div>
          </Section>
        )}
      </SimpleGrid>
      <Runbooks subject={{ incident: incident.id }} causes={[incident.cause]} checks={[incident.detail]} />
      <Section title={t('incident.course')}>
        <Stack gap={6}>
          {incident.events.map((event, i) => (
            <Text size="sm" key={i} style={{ overflowWrap: 'anywhere' }}>
              <Exact at={event.at} /> · <b>{t(`incident.events.${event.kind}`, { defaultValue: event.kind })}</b>
              {event.actor === 'system' ? '' : ` · ${event.actor}`}
              <Particulars kind={event.kind} detail={event.detail as Record<string, unknown>} />
            </Text>
          ))}
        </Stack>
      </Section>
      <NewNote
        hint={t('incident.noteHint')}
        save={(text) => calls.noteIncident(incident.id, text)}
        shown={keys.incident(incident.id)}
      />
    </>
  )
}

/** What stands beside an event, in words. */
function Particulars({ kind, detail }: { kind: string; detail: Record<string, unknown> }) {
  const { t } = useTranslation()
  const text = typeof detail['text'] === 'string' ? detail['text'] : ''
  switch (kind) {
    case 'note':
      return <span style={{ whiteSpace: 'pre-wrap' }}>{` · ${text}`}</span>
    case 'cause':
      return <> · {t('incident.fromTo', { from: t(`incident.causes.${String(detail['from'])}`), to: t(`incident.causes.${String(detail['to'])}`) })}</>
    case 'handed':
      return (
        <>
          {' '}
          · {t(`incident.parties.${String(detail['to'])}`)}
          {text ? ` · ${text}` : ''}
        </>
      )
    case 'runbook': {
      const title = detail['title'] as { vi: string; en: string } | undefined
      return <> · {title?.[language()]} · {t(`runbook.states.${String(detail['state'])}`)}</>
    }
    case 'grown':
      return <> · {t('incident.grownBy', { count: Number(detail['more'] ?? 0), of: Number(detail['endpoints'] ?? 0) })}</>
    default:
      return null
  }
}

function Actions({ incident }: { incident: IncidentDetail }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [handing, setHanding] = useState(false)
  const [busy, once] = useOnce()
  if (!incident.open) return null
  const acknowledge = async () => {
    try {
      await calls.acknowledgeIncident(incident.id)
      done(t('incident.acknowledged'))
    } catch (error) {
      refused(problemText(t, error))
    }
    await client.invalidateQueries({ queryKey: keys.incident(incident.id) })
  }
  return (
    <>
      {!incident.acknowledged_by && (
        <Button loading={busy} onClick={() => void once(acknowledge)}>
          {t('incident.acknowledge')}
        </Button>
      )}
      <Button variant="default" onClick={() => setHanding(true)}>
        {t('incident.handOver')}
      </Button>
      <HandOver incident={incident} opened={handing} onClose={() => setHanding(false)} />
    </>
  )
}

function HandOver({ incident, opened, onClose }: { incident: IncidentDetail; opened: boolean; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [party, setParty] = useState<Party>(incident.party)
  const [minutes, setMinutes] = useState<number>(240)
  const [text, setText] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, once] = useOnce()
  const submit = async () => {
    try {
      await calls.handOverIncident(incident.id, { party, answer_minutes: minutes, text })
      setError(undefined)
      onClose()
      await client.invalidateQueries({ queryKey: keys.incident(incident.id) })
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <Modal opened={opened} onClose={onClose} title={t('incident.handOver')} closeButtonProps={{ 'aria-label': t('common.close') }}>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void once(submit)
        }}
      >
        <Stack gap="md">
          <PartyFields first party={party} minutes={minutes} onParty={setParty} onMinutes={setMinutes} />
          <Textarea label={t('incident.told')} autosize minRows={2} value={text} onChange={(e) => setText(e.currentTarget.value)} />
          {error !== undefined && <ErrorPanel error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t('common.cancel')}
            </Button>
            <Button type="submit" loading={busy}>
              {t('incident.handOver')}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
