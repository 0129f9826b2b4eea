import { Button, Group, SimpleGrid, Stack, Text, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Gateway } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Answer, Empty } from '../ui/feedback'
import { done } from '../ui/notify'
import { Facts, Page } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'

/** A gateway says that it lives every five seconds; asked as often, the page is never far behind. */
const LOOK_MS = 5000

export function GatewaysPage({ operator }: { operator: boolean }) {
  const { t } = useTranslation()
  const [asked, setAsked] = useState<Gateway>()
  const client = useQueryClient()
  const query = useQuery({ queryKey: keys.gateways, queryFn: calls.gateways, refetchInterval: LOOK_MS })
  const verb = asked?.draining ? 'undrain' : 'drain'
  const change = async (gateway: Gateway) => {
    await calls.drainGateway(gateway.id, !gateway.draining)
    await client.invalidateQueries({ queryKey: keys.gateways })
    done(t(`gateway.done.${gateway.draining ? 'undrain' : 'drain'}`, { name: gateway.name }))
  }
  return (
    <Page title={t('nav.gateways')} lead={t('gateway.lead')}>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('gateway.none')}>{t('gateway.noneHint')}</Empty>
          ) : (
            <SimpleGrid cols={{ base: 1, lg: 2 }}>
              {list.items.map((gateway) => (
                <GatewayCard
                  key={gateway.id}
                  gateway={gateway}
                  onAsk={operator ? () => setAsked(gateway) : undefined}
                />
              ))}
            </SimpleGrid>
          )
        }
      </Answer>
      {asked && (
        <Confirm
          opened
          danger={verb === 'drain'}
          title={t(`gateway.ask.${verb}`, { name: asked.name })}
          action={t(`gateway.${verb}`)}
          onClose={() => setAsked(undefined)}
          onConfirm={() => change(asked)}
        >
          {t(`gateway.why.${verb}`, { count: asked.sessions })}
        </Confirm>
      )}
    </Page>
  )
}

function GatewayCard({ gateway, onAsk }: { gateway: Gateway; onAsk?: () => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const gone = gateway.state === 'silent' || gateway.state === 'stopped'
  return (
    <Stack className="card" p="lg" gap="md" component="section" aria-label={gateway.name} data-gateway={gateway.name}>
      <Group justify="space-between">
        <Title order={2} fz={18}>
          {gateway.name}
        </Title>
        <StatePill group="gateway.state" state={gateway.state} />
      </Group>
      {gateway.state === 'silent' && <Text size="sm">{t('gateway.silentHint')}</Text>}
      {gateway.embedded && <Text size="sm">{t('gateway.embeddedHint')}</Text>}
      <Facts
        rows={[
          [t('gateway.sessions'), format.number(gateway.sessions)],
          [t('gateway.connections'), gone ? '—' : format.number(gateway.connections)],
          [t('gateway.seen'), <Ago key="seen" at={gateway.seen_at} />],
          [t('gateway.started'), <Ago key="started" at={gateway.started_at} />],
          [t('gateway.web'), gateway.web_url],
          [t('gateway.agents'), gateway.agent_url ?? t('gateway.agentsOwn')],
          [t('gateway.hosts'), t(gateway.local_hosts ? 'gateway.hostsAll' : 'gateway.hostsNodes')],
          [t('gateway.version'), gateway.version],
        ]}
      />
      {onAsk && (
        <Group>
          <Button size="xs" variant="default" onClick={onAsk}>
            {t(gateway.draining ? 'gateway.undrain' : 'gateway.drain')}
          </Button>
        </Group>
      )}
    </Stack>
  )
}
