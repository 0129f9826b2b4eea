import { Button, Group, Stack, Table, Text } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Section } from '../ui/page'
import { Rows } from '../ui/rows'
import { sentence } from '../ui/sentence'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'
import { Timeline } from '../ui/timeline'

type Health = Awaited<ReturnType<typeof calls.endpointHealth>>

const HOURS = 6
const WAYS = ['gateway', 'controller'] as const
const worst = { crit: 0, warn: 1, unknown: 2, ok: 3 } as const

/** Checks with their evidence, the line over the last hours, and what is plugged in. */
export function EndpointHealth({ id, metered }: { id: string; metered: boolean }) {
  const { t } = useTranslation()
  const [until, setUntil] = useState(0)
  const [now, setNow] = useState(() => Date.now())
  const live = until > now
  useEffect(() => {
    if (until === 0) return
    const timer = setInterval(() => setNow(Date.now()), 1000)
    return () => clearInterval(timer)
  }, [until])
  const every = live ? 1000 : 30_000
  const health = useQuery({ queryKey: keys.endpointHealth(id), queryFn: () => calls.endpointHealth(id), refetchInterval: every })
  const samples = useQuery({
    queryKey: keys.endpointSamples(id),
    queryFn: () => calls.endpointSamples(id, new Date(Date.now() - HOURS * 3_600_000).toISOString()),
    refetchInterval: live ? 2000 : 60_000,
  })
  const data = health.data
  if (!data?.at) return null
  return (
    <>
      <Section title={t('health.checks')}>
        <Group justify="space-between">
          <Text size="sm" c="dimmed">
            {t('health.at')} <Ago at={data.at} />
          </Text>
          <Live id={id} metered={metered} left={live ? Math.ceil((until - now) / 1000) : 0} onLive={setUntil} />
        </Group>
        <Checks checks={data.checks} />
      </Section>
      <Section title={t('health.line')}>
        <Timeline points={samples.data?.items ?? []} hours={HOURS} />
        <Ways gauges={data.gauges} usual={data.usual_ms ?? null} />
        <Probes probes={data.probes.filter((p) => !WAYS.some((way) => way === p.name))} />
      </Section>
      <Section title={t('health.things')}>
        <Things inventory={data.inventory} />
      </Section>
    </>
  )
}

function Live({ id, metered, left, onLive }: { id: string; metered: boolean; left: number; onLive: (until: number) => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [asking, setAsking] = useState(false)
  const [sure, setSure] = useState(false)
  const look = async () => {
    onLive(new Date((await calls.lookAtEndpoint(id, metered)).until).getTime())
    await client.invalidateQueries({ queryKey: keys.endpointHealth(id) })
  }
  if (left > 0) {
    return (
      <Text size="sm" role="status">
        {t('health.liveLeft', { seconds: left })}
      </Text>
    )
  }
  return (
    <>
      <Button
        size="xs"
        variant="default"
        loading={asking}
        onClick={async () => {
          if (metered) {
            setSure(true)
            return
          }
          setAsking(true)
          try {
            await look()
          } finally {
            setAsking(false)
          }
        }}
      >
        {t('health.live')}
      </Button>
      <Confirm opened={sure} title={t('health.live')} action={t('health.live')} onClose={() => setSure(false)} onConfirm={look}>
        {t('health.liveMetered')}
      </Confirm>
    </>
  )
}

function Checks({ checks }: { checks: Health['checks'] }) {
  const { t } = useTranslation()
  const { language } = useFormat()
  const [all, setAll] = useState(false)
  const sorted = [...checks].sort((a, b) => worst[a.state] - worst[b.state])
  const bad = sorted.filter((c) => c.state === 'crit' || c.state === 'warn')
  const shown = all ? sorted : bad
  return (
    <Stack gap="xs">
      {bad.length === 0 && <Text size="sm">{t('health.allFine', { n: checks.length })}</Text>}
      {shown.map((c) => {
        const { what, next } = sentence(c.text_code, c.params, language)
        return (
          <Group key={c.check} gap="sm" wrap="nowrap" align="flex-start">
            <StatePill group="endpoint.verdict" state={c.state} />
            <div>
              <Text size="sm">
                <b>{t(`endpoint.check.${c.check}`, { defaultValue: c.check })}</b> · {what}
              </Text>
              {next && c.state !== 'ok' && <Text size="sm">→ {next}</Text>}
              {c.state !== 'ok' && (
                <Text size="xs" c="dimmed">
                  {t('health.since')} <Ago at={c.since} />
                </Text>
              )}
            </div>
          </Group>
        )
      })}
      <Button variant="subtle" size="compact-sm" w="fit-content" onClick={() => setAll(!all)}>
        {all ? t('health.fewer') : t('health.more', { n: checks.length })}
      </Button>
    </Stack>
  )
}

/** The ways out: to the router, and, where this computer measures it, the office's line to the data centre. */
function Ways({ gauges, usual }: { gauges: Health['gauges']; usual: number | null }) {
  const { t } = useTranslation()
  const format = useFormat()
  const known = WAYS.filter((way) => gauges[`${way}_loss`] !== undefined)
  if (known.length === 0) return null
  const number = (name: string, digits: number) => {
    const value = gauges[name]
    return value === undefined ? '—' : format.number(value, digits)
  }
  return (
    <Rows label={t('health.way')} head={['way', 'half', 'nineteen', 'usual', 'jitter', 'loss'].map((name) => t(`health.${name}`))} least={480}>
      {known.map((way) => (
        <Table.Tr key={way}>
          <Table.Td>{t(`health.gauge.${way}_ms`)}</Table.Td>
          <Table.Td>{number(`${way}_p50_ms`, 1)}</Table.Td>
          <Table.Td>{number(`${way}_p95_ms`, 1)}</Table.Td>
          <Table.Td>{way === 'controller' && usual !== null ? format.number(usual, 1) : '—'}</Table.Td>
          <Table.Td>{number(`${way}_jitter_ms`, 1)}</Table.Td>
          <Table.Td>{number(`${way}_loss`, 0)} %</Table.Td>
        </Table.Tr>
      ))}
    </Rows>
  )
}

function Probes({ probes }: { probes: Health['probes'] }) {
  const { t } = useTranslation()
  const format = useFormat()
  if (probes.length === 0) return null
  const ms = (value: number | null | undefined) => (value == null ? '—' : format.number(value, 1))
  return (
    <Rows label={t('health.probe')} head={['probe', 'state', 'resolve', 'connect', 'tls', 'firstByte', 'roundTrip', 'loss'].map((name) => t(`health.${name}`))} least={560}>
      {probes.map((p) => (
        <Table.Tr key={p.name}>
          <Table.Td>{p.name}</Table.Td>
          <Table.Td>
            <StatePill group="endpoint.verdict" state={p.state} />
            {p.failed ? ` ${t(`health.phase.${p.failed}`, { defaultValue: p.failed })}: ${p.error ?? ''}` : ''}
          </Table.Td>
          <Table.Td>{ms(p.resolve_ms)}</Table.Td>
          <Table.Td>{ms(p.connect_ms)}</Table.Td>
          <Table.Td>{ms(p.tls_ms)}</Table.Td>
          <Table.Td>{ms(p.first_byte_ms)}</Table.Td>
          <Table.Td>{p.p50_ms == null ? '—' : `${ms(p.p50_ms)} / ${ms(p.p95_ms)}`}</Table.Td>
          <Table.Td>{p.loss_percent == null ? '—' : `${format.number(p.loss_percent, 0)} %`}</Table.Td>
        </Table.Tr>
      ))}
    </Rows>
  )
}

function Things({ inventory }: { inventory: Health['inventory'] }) {
  const { t } = useTranslation()
  const items = Object.values(inventory).flat()
  if (items.length === 0) return <Text size="sm">{t('health.noThings')}</Text>
  return (
    <Stack gap={6}>
      {items.map((item, i) => (
        <div key={i}>
          <Text size="sm">
            <b>{t(`health.kind.${item.kind}`, { defaultValue: item.kind })}</b> · {item.name ?? item.id}
          </Text>
          <Text size="xs" c="dimmed">
            {Object.entries(item.facts)
              .map(([name, value]) => `${t(`health.fact.${name}`, { defaultValue: name })}: ${value}`)
              .join(' · ')}
          </Text>
        </div>
      ))}
    </Stack>
  )
}
