import { Button, Group, Stack, Table, Text, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { AgentRelease } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { SAFETY_MS } from '../live/events'
import { Confirm } from '../ui/confirm'
import { Answer, Empty } from '../ui/feedback'
import { done } from '../ui/notify'
import { Facts, Page, Section } from '../ui/page'
import { Rows } from '../ui/rows'
import { StatePill, type Tone } from '../ui/state'
import { Ago, Exact } from '../ui/time'

const tones: Record<AgentRelease['state'], Tone> = {
  running: 'busy', paused: 'warn', stopped: 'bad', done: 'ok', aborted: 'idle', superseded: 'idle',
}
type Wish = 'pause' | 'resume' | 'abort'
const wishes: Record<AgentRelease['state'], Wish[]> = {
  running: ['pause', 'abort'], paused: ['resume', 'abort'], stopped: ['resume', 'abort'], done: ['abort'], aborted: [], superseded: [],
}

/** Releases of the endpoints' agent: how far each ring is, who failed and why. */
export function UpdatesPage({ operator }: { operator: boolean }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const query = useQuery({ queryKey: keys.updates, queryFn: calls.updates, refetchInterval: SAFETY_MS })
  const [asked, setAsked] = useState<{ release: AgentRelease; wish: Wish }>()
  const change = async (release: AgentRelease, wish: Wish) => {
    await calls.wishUpdate(release.id, wish)
    await client.invalidateQueries({ queryKey: keys.updates })
    done(t(`update.done.${wish}`, { version: release.version }))
  }
  return (
    <Page title={t('nav.updates')} lead={t('update.lead')}>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('update.none')}>{t('update.noneHint')}</Empty>
          ) : (
            <Stack gap="md">
              {list.items.map((release) => (
                <Release key={release.id} release={release} onAsk={operator ? (wish) => setAsked({ release, wish }) : undefined} />
              ))}
            </Stack>
          )
        }
      </Answer>
      {asked && (
        <Confirm
          opened
          danger={asked.wish !== 'resume'}
          title={t(`update.ask.${asked.wish}`, { version: asked.release.version })}
          action={t(`update.${asked.wish}`)}
          onClose={() => setAsked(undefined)}
          onConfirm={() => change(asked.release, asked.wish)}
        >
          {t(`update.why.${asked.wish}`)}
        </Confirm>
      )}
    </Page>
  )
}

function Release({ release: r, onAsk }: { release: AgentRelease; onAsk?: (wish: Wish) => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const [open, setOpen] = useState(false)
  const failed = r.rings.some((ring) => ring.failed > 0)
  const actions = onAsk ? wishes[r.state] : []
  const name = `${r.version} (${r.arch})`
  return (
    <Stack className="card" p="lg" gap="md" component="section" aria-label={name} data-release={r.version}>
      <Group justify="space-between">
        <Title order={2} fz={18}>
          {name}
        </Title>
        <StatePill group="update.states" state={r.state} tone={tones[r.state]} />
      </Group>
      {r.state === 'stopped' ? (
        <Text size="sm">{t('update.tooMany', { ring: t(`update.ringNames.${r.ring}`) })}</Text>
      ) : (
        r.reason && <Text size="sm">{r.reason}</Text>
      )}
      <Rows label={t('update.rings', { version: name })} head={['ring', 'progress', 'busy', 'failed', 'silent'].map((h) => t(`update.${h}`))}>
        {r.rings.map((ring) => (
          <Table.Tr key={ring.ring} data-ring={ring.ring}>
            <Table.Td>
              {t(`update.ringNames.${ring.ring}`)}
              {!ring.open && <span className="quiet"> · {t('update.closed')}</span>}
            </Table.Td>
            <Table.Td>{t('update.of', { done: format.number(ring.committed), all: format.number(ring.total) })}</Table.Td>
            <Table.Td>{format.number(ring.busy)}</Table.Td>
            <Table.Td>{format.number(ring.failed)}</Table.Td>
            <Table.Td>{format.number(ring.silent)}</Table.Td>
          </Table.Tr>
        ))}
      </Rows>
      <Facts
        rows={[
          [t('update.since'), <Ago key="since" at={r.ring_since} />],
          [t('update.published'), `${r.created_by}, ${r.signed_by.length} ${t('update.signatures')}`],
          [t('update.expires'), <Exact key="expires" at={r.expires_at} />],
          [t('update.kind'), t(r.hotfix ? 'update.hotfix' : 'update.usual') + (r.any_time ? ` · ${t('update.anyTime')}` : '')],
        ]}
      />
      <Group gap="sm">
        {actions.map((wish) => (
          <Button key={wish} size="xs" variant="default" onClick={() => onAsk?.(wish)}>
            {t(`update.${wish}`)}
          </Button>
        ))}
        <Button size="xs" variant={failed ? 'light' : 'subtle'} aria-expanded={open} onClick={() => setOpen(!open)}>
          {t(open ? 'update.hide' : 'update.show')}
        </Button>
      </Group>
      {open && <Failures id={r.id} version={name} />}
    </Stack>
  )
}

function Failures({ id, version }: { id: string; version: string }) {
  const { t } = useTranslation()
  const format = useFormat()
  const query = useQuery({ queryKey: keys.update(id), queryFn: () => calls.update(id), refetchInterval: SAFETY_MS })
  return (
    <Answer query={query}>
      {(detail) => (
        <Section title={t('update.failures', { version })}>
          <Text size="sm" className="quiet">
            {t('update.copies', { copies: format.number(detail.copies), mb: format.number(detail.bytes_from_copies / 1e6, 1) })}
          </Text>
          {detail.failures.length === 0 ? (
            <Text size="sm">{t('update.noFailures')}</Text>
          ) : (
            <Rows label={t('update.failures', { version })} head={['computer', 'ring', 'stage', 'reason', 'strikes', 'at'].map((h) => t(`update.${h}`))}>
              {detail.failures.map((f) => (
                <Table.Tr key={f.endpoint_id}>
                  <Table.Td>
                    <Link className="link" to={`/endpoints/${f.endpoint_id}`}>
                      {f.endpoint_name}
                    </Link>{' '}
                    <span className="quiet">{f.site_code}</span>
                  </Table.Td>
                  <Table.Td>{t(`update.ringNames.${f.ring}`)}</Table.Td>
                  <Table.Td>{t(`update.stages.${f.stage}`)}</Table.Td>
                  <Table.Td>
                    {t(`update.codes.${f.code}`, { defaultValue: f.code })} {f.detail}
                  </Table.Td>
                  <Table.Td>{format.number(f.strikes)}</Table.Td>
                  <Table.Td>
                    <Ago at={f.at} />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Rows>
          )}
        </Section>
      )}
    </Answer>
  )
}
