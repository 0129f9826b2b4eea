import { Anchor, Button, Group, Select, SimpleGrid, Stack, Text, TextInput } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Endpoint } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Answer, ErrorPanel } from '../ui/feedback'
import { Facts, Page, Section } from '../ui/page'
import { sentence } from '../ui/sentence'
import { StatePill } from '../ui/state'
import { Ago, Exact } from '../ui/time'
import { Diagnosis } from './Diagnosis'
import { EndpointCopies } from './EndpointCopies'
import { EndpointHealth } from './EndpointHealth'

export function EndpointPage({ operator }: { operator: boolean }) {
  const { id = '' } = useParams()
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.endpoint(id), queryFn: () => calls.endpoint(id), refetchInterval: 30_000 })
  return (
    <Page
      title={query.data?.name ?? t('endpoint.one')}
      lead={
        <Anchor component={Link} to="/endpoints" className="link">
          ← {t('nav.endpoints')}
        </Anchor>
      }
      actions={query.data && query.data.state !== 'revoked' && <Revoke endpoint={query.data} />}
    >
      <Answer query={query}>{(endpoint) => <Detail endpoint={endpoint} operator={operator} />}</Answer>
    </Page>
  )
}

function Detail({ endpoint, operator }: { endpoint: Endpoint; operator: boolean }) {
  const { t } = useTranslation()
  const format = useFormat()
  const { hardware, vitals, network } = endpoint
  const ms = (value: number | null | undefined) =>
    value === null || value === undefined ? '—' : `${format.number(value, 1)} ms`
  return (
    <>
      <Group gap="sm" className="card" p="lg">
        <StatePill group="endpoint.state" state={endpoint.state} />
        <StatePill group="endpoint.verdict" state={endpoint.verdict} />
        {endpoint.quarantined_at && <StatePill group="endpoint.state" state="quarantined" />}
        <Text size="sm">
          {t('endpoint.lastSeen')}: <Ago at={endpoint.last_seen_at} both />
        </Text>
        <Anchor component={Link} className="link" size="sm" to={`/time-travel?endpoint=${endpoint.id}`}>
          {t('then.link')}
        </Anchor>
      </Group>
      <EndpointCopies endpoint={endpoint} />
      {endpoint.verdict_reasons.length > 0 && (
        <Section title={t('endpoint.reasons')}>
          <Stack component="ul" gap={6} m={0} pl="lg">
            {endpoint.verdict_reasons.map((reason, i) => (
              <li key={i}>
                <Text size="sm" component="span">
                  <b>{t(`endpoint.check.${reason.check}`, { defaultValue: reason.check })}</b> ·{' '}
                  {sentence(reason.text_code, reason.params, format.language).what}
                </Text>
              </li>
            ))}
          </Stack>
        </Section>
      )}
      {endpoint.state !== 'revoked' && (
        <Diagnosis id={endpoint.id} online={endpoint.state === 'online'} operator={operator} />
      )}
      <EndpointHealth id={endpoint.id} metered={endpoint.metered} />
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Section title={t('endpoint.hardware')}>
          <Facts
            rows={[
              [t('endpoint.vendor'), hardware?.vendor],
              [t('endpoint.model'), hardware?.model],
              [t('endpoint.serial'), hardware?.serial],
              [t('endpoint.cpu'), hardware?.cpu_model],
              [t('endpoint.cpus'), format.number(hardware?.cpus)],
              [t('endpoint.memory'), format.mebibytes(hardware?.memory_mib)],
              ...(hardware?.disks ?? []).map((disk): [string, ReactNode] => [
                `${t('endpoint.disk')} ${disk.name}`,
                `${disk.model ?? ''} ${disk.size_gib ? `${format.number(disk.size_gib, 1)} GiB` : ''}`.trim() || '—',
              ]),
            ]}
          />
        </Section>
        <Section title={t('endpoint.vitals')}>
          <Facts
            rows={[
              [t('endpoint.cpuLoad'), vitals?.cpu_percent == null ? '—' : `${format.number(vitals.cpu_percent, 1)} %`],
              [
                t('endpoint.memoryUsed'),
                vitals ? `${format.mebibytes(vitals.memory_used_mib)} / ${format.mebibytes(vitals.memory_total_mib)}` : '—',
              ],
              [t('endpoint.load1'), format.number(vitals?.load1, 2)],
              [t('endpoint.uptime'), format.duration(vitals?.uptime_s)],
              ...(vitals?.temperatures ?? []).map((sensor): [string, ReactNode] => [
                sensor.label,
                `${format.number(sensor.celsius, 1)} °C`,
              ]),
            ]}
          />
        </Section>
        <Section title={t('endpoint.network')}>
          <Facts
            rows={[
              [t('endpoint.gatewayRtt'), ms(network?.gateway_rtt_ms)],
              [t('endpoint.dns'), ms(network?.dns_ms)],
              [t('endpoint.controllerRtt'), ms(network?.controller_rtt_ms)],
              [t('endpoint.skew'), ms(network?.skew_ms)],
              [t('endpoint.link'), t(`endpoint.linkBy.${endpoint.link}`)],
              [t('endpoint.metered.one'), t(`endpoint.metered.${endpoint.metered ? 'yes' : 'no'}`)],
              ...(network?.interfaces ?? []).map((nic): [string, ReactNode] => [
                nic.name,
                [nic.addresses?.join(', '), nic.mac, nic.speed_mbps ? `${format.number(nic.speed_mbps)} Mbit/s` : '']
                  .filter(Boolean)
                  .join(' · ') || '—',
              ]),
            ]}
          />
        </Section>
        {operator && endpoint.state !== 'revoked' && (
          <Section title={t('endpoint.metered.one')}>
            <Metered endpoint={endpoint} />
          </Section>
        )}
        <Section title={t('endpoint.identity')}>
          <Facts
            rows={[
              [t('site.one'), `${endpoint.site.name}${endpoint.site.district ? `, ${endpoint.site.district}` : ''} (${endpoint.site.code})`],
              [t('endpoint.os'), endpoint.os],
              [t('endpoint.agent'), endpoint.agent_version],
              [t('endpoint.enrolled'), <Exact key="e" at={endpoint.enrolled_at} />],
              [t('endpoint.certificate'), <Exact key="c" at={endpoint.cert_not_after} />],
              [t('endpoint.key'), endpoint.key ? t(`endpoint.keyPlace.${endpoint.key}`) : '—'],
              ['ID', endpoint.id],
            ]}
          />
        </Section>
      </SimpleGrid>
      {(endpoint.history?.length ?? 0) > 0 && (
        <Section title={t('endpoint.history')}>
          <Stack gap={4}>
            {endpoint.history?.map((entry, i) => (
              <Text size="sm" key={i}>
                <Exact at={entry.at} /> · {t(`endpoint.event.${entry.kind}`, { defaultValue: entry.kind })}
                {entry.detail ? ` · ${entry.detail}` : ''}
              </Text>
            ))}
          </Stack>
        </Section>
      )}
    </>
  )
}

/** Whether this computer's line is paid by the byte, whatever is said of its site. */
function Metered({ endpoint }: { endpoint: Endpoint }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [error, setError] = useState<unknown>()
  const here = endpoint.metered_here ?? null
  const value = here === null ? 'site' : here ? 'yes' : 'no'
  const set = async (word: string | null) => {
    setError(undefined)
    try {
      await calls.setEndpointMetered(endpoint.id, word === 'site' ? null : word === 'yes')
      await client.invalidateQueries({ queryKey: keys.endpoint(endpoint.id) })
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <Stack gap="sm">
      <Select
        label={t('endpoint.metered.set')}
        description={t('site.line.meteredHint')}
        value={value}
        data={['site', 'yes', 'no'].map((word) => ({ value: word, label: t(`endpoint.metered.${word}`) }))}
        allowDeselect={false}
        onChange={(word) => void set(word)}
      />
      {error !== undefined && <ErrorPanel error={error} />}
    </Stack>
  )
}

function Revoke({ endpoint }: { endpoint: Endpoint }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [opened, setOpened] = useState(false)
  const [reason, setReason] = useState('')
  return (
    <>
      <Button variant="default" c="light-dark(#9c1c1c, #ffa8a8)" onClick={() => setOpened(true)}>
        {t('endpoint.revoke')}
      </Button>
      <Confirm
        opened={opened}
        danger
        title={t('endpoint.revoke')}
        action={t('endpoint.revoke')}
        typed={endpoint.name}
        onClose={() => setOpened(false)}
        onConfirm={async () => {
          await calls.revokeEndpoint(endpoint.id, reason)
          await client.invalidateQueries({ queryKey: keys.endpoint(endpoint.id) })
        }}
      >
        <Stack gap="sm">
          {t('endpoint.revokeAsk')}
          <TextInput label={t('endpoint.revokeReason')} value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
        </Stack>
      </Confirm>
    </>
  )
}
