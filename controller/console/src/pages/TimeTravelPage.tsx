import { Button, Group, SimpleGrid, Stack, Text, TextInput } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useSearchParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { ThenFinding, ThenJudgement, ThenMoment } from '../api/types'
import { language } from '../i18n'
import { Answer } from '../ui/feedback'
import { Page, Section } from '../ui/page'
import { sentence } from '../ui/sentence'
import { SiteSelect } from '../ui/SiteSelect'
import { StatePill, type Tone } from '../ui/state'
import { Exact } from '../ui/time'
import { useIncidentText } from './incidentText'

const PLACES = ['site', 'endpoint', 'incident'] as const
const presences: Record<string, Tone> = { online: 'ok', silent: 'bad', gone: 'idle', revoked: 'idle', unknown: 'idle' }
const truths: Record<string, Tone> = { heard: 'ok', ran_unheard: 'warn', off: 'bad', unknown: 'idle' }

/** `2026-11-25T08:12` by the clock of the offices, as an input of this kind wants it. */
const local = (at: string) => new Date(new Date(at).getTime() + 7 * 3_600_000).toISOString().slice(0, 16)
const moment = (text: string) => new Date(`${text}:00+07:00`).toISOString()

/** A moment of a site: what was known then, and what is known of it now. */
export function TimeTravelPage() {
  const { t } = useTranslation()
  const [search, setSearch] = useSearchParams()
  const kind = PLACES.find((p) => search.get(p)) ?? 'site'
  const id = search.get(kind) ?? ''
  const at = search.get('at') ?? ''
  const query = useQuery({
    queryKey: keys.then(kind, id, at),
    queryFn: () => calls.timeTravel({ [kind]: id, ...(at ? { at } : {}) }),
    enabled: id !== '',
  })
  const go = (to: string) => setSearch({ [kind]: id, at: to })
  return (
    <Page title={t('then.title')} lead={t('then.lead')}>
      {(kind === 'site' || !id) && (
        <div className="card" style={{ padding: 'var(--mantine-spacing-lg)' }}>
          <SiteSelect label={t('site.one')} value={kind === 'site' ? id : ''} onChange={(code) => setSearch({ site: code ?? '', ...(at ? { at } : {}) })} />
        </div>
      )}
      {id && <Answer query={query}>{(m) => <Shown key={m.at} moment={m} go={go} />}</Answer>}
    </Page>
  )
}

function Shown({ moment: m, go }: { moment: ThenMoment; go: (at: string) => void }) {
  const { t } = useTranslation()
  const [text, setText] = useState(local(m.at))
  const before = m.stops.filter((s) => s.at < m.at).at(-1)
  const after = m.stops.find((s) => s.at > m.at)
  return (
    <>
      <form
        className="card"
        style={{ padding: 'var(--mantine-spacing-lg)' }}
        onSubmit={(event) => {
          event.preventDefault()
          if (text) go(moment(text))
        }}
      >
        <Group align="flex-end" gap="sm">
          <TextInput type="datetime-local" label={t('then.at')} value={text} onChange={(e) => setText(e.currentTarget.value)} />
          <Button type="submit">{t('then.go')}</Button>
          <Button variant="default" disabled={!before} onClick={() => before && go(before.at)}>
            ← {t('then.before')}
          </Button>
          <Button variant="default" disabled={!after} onClick={() => after && go(after.at)}>
            {t('then.after')} →
          </Button>
        </Group>
      </form>
      <Section title={t('then.incidents')}>
        {m.incidents.length === 0 && <Text size="sm">{t('then.noIncident')}</Text>}
        {m.incidents.map((i) => (
          <Stack key={i.incident.id} gap="xs">
            <Link className="link" to={`/incidents/${i.incident.id}`}>
              <Exact at={i.incident.opened_at} />
              {i.incident.over_at ? (
                <>
                  {' – '}
                  <Exact at={i.incident.over_at} />
                </>
              ) : null}
            </Link>
            <SimpleGrid cols={{ base: 1, md: 2 }}>
              <Judgement title={t('then.then')} judged={i.then} none={t('then.unknownThen')} />
              <Judgement title={t('then.now')} judged={i.now} none="—" />
            </SimpleGrid>
          </Stack>
        ))}
      </Section>
      <Section title={t('then.computers')}>
        {m.computers.length === 0 && <Text size="sm">{t('then.noComputer')}</Text>}
        {m.computers.map((c) => (
          <Stack key={c.id} gap="xs" pb="sm">
            <Link className="link" to={`/endpoints/${c.id}`}>
              {c.name}
            </Link>
            <SimpleGrid cols={{ base: 1, md: 2 }}>
              <div>
                <Text size="sm">
                  {t('then.then')}: <StatePill group="then.presences" state={c.then} tone={presences[c.then] ?? 'idle'} />{' '}
                  {c.since && <Exact at={c.since} />}
                </Text>
                <Findings of={c.findings_then} />
              </div>
              <div>
                <Text size="sm">
                  {t('then.now')}: <StatePill group="then.truths" state={c.truth} tone={truths[c.truth] ?? 'idle'} />{' '}
                  {c.learnt_at && (
                    <span className="quiet">
                      {t('then.learnt')} <Exact at={c.learnt_at} />
                    </span>
                  )}
                </Text>
                <Findings of={c.findings_now} />
              </div>
            </SimpleGrid>
          </Stack>
        ))}
      </Section>
      <Section title={t('then.stops')}>
        <Stack component="ol" gap={4} m={0} pl="lg">
          {m.stops.map((s, i) => (
            <Text component="li" size="sm" key={i}>
              <button type="button" className="link" style={{ all: 'unset', cursor: 'pointer' }} onClick={() => go(s.at)}>
                <span className="link">
                  <Exact at={s.at} />
                </span>
              </button>{' '}
              {stop(s.what, t)}
            </Text>
          ))}
        </Stack>
      </Section>
    </>
  )
}

function stop(what: string, t: (key: string, values?: Record<string, unknown>) => string): string {
  const [kind = '', word = ''] = what.split('.')
  if (kind === 'endpoint') return t(`endpoint.event.${word}`, { defaultValue: word })
  return word === 'over' ? t('incident.states.over') : t(`incident.causes.${word}`)
}

function Judgement({ title, judged, none }: { title: string; judged: ThenJudgement | null | undefined; none: string }) {
  const { t } = useTranslation()
  const words = useIncidentText()
  if (!judged) {
    return (
      <Text size="sm">
        <b>{title}</b>: {none}
      </Text>
    )
  }
  return (
    <div>
      <Text size="sm">
        <b>{title}</b>: {t(`incident.causes.${judged.cause}`)} · {t('incident.confidence')} {t(`incident.confidences.${judged.confidence}`)} ·{' '}
        <Exact at={judged.at} />
      </Text>
      <Stack component="ul" gap={2} m={0} pl="lg">
        {judged.evidence.map((e, i) => (
          <Text component="li" size="sm" key={i}>
            {words.sentence(e)}
          </Text>
        ))}
      </Stack>
    </div>
  )
}

function Findings({ of }: { of: ThenFinding[] }) {
  const { t } = useTranslation()
  if (of.length === 0) return null
  return (
    <Stack component="ul" gap={2} m={0} pl="lg">
      {of.map((f, i) => (
        <Text component="li" size="sm" key={i}>
          {t(`endpoint.check.${f.check}`, { defaultValue: f.check })}: {sentence(f.code, f.params, language()).what}
        </Text>
      ))}
    </Stack>
  )
}
