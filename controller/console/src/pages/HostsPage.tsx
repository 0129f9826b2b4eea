import { Button, Group, Progress, Select, SimpleGrid, Stack, Text, Title } from '@mantine/core'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Host, HostChange } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { Facts, Page } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'

export function HostsPage() {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.hosts, queryFn: calls.hosts })
  return (
    <Page title={t('nav.hosts')} lead={t('host.lead')}>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('host.none')}>{t('host.noneHint')}</Empty>
          ) : (
            <SimpleGrid cols={{ base: 1, lg: 2 }}>
              {list.items.map((host) => (
                <HostCard key={host.id} host={host} />
              ))}
            </SimpleGrid>
          )
        }
      </Answer>
    </Page>
  )
}

function HostCard({ host }: { host: Host }) {
  const { t } = useTranslation()
  const format = useFormat()
  const client = useQueryClient()
  const change = useMutation({
    mutationFn: (values: HostChange) => calls.setHost(host.id, values),
    onSettled: () => client.invalidateQueries({ queryKey: keys.hosts }),
  })
  const accel = host.accel ?? 'unknown'
  return (
    <Stack className="card" p="lg" gap="md" component="section" aria-label={host.name} data-host={host.name}>
      <Group justify="space-between">
        <Title order={2} fz={18}>
          {host.name}
        </Title>
        <StatePill group="host.state" state={host.state} />
      </Group>
      {host.state_reason && <Text size="sm">{host.state_reason}</Text>}
      {host.unknown_desktops > 0 && <Text size="sm">{t('host.unknown', { count: host.unknown_desktops })}</Text>}
      <Usage label={t('host.memory')} total={host.memory_mib} free={host.memory_free_mib} />
      <Usage label={t('host.disk')} total={host.disk_mib} free={host.disk_free_mib} />
      <Facts
        rows={[
          [
            t('host.accel'),
            <span key="accel" data-testid="accel">
              <b>{t(`host.accelName.${accel}`, { defaultValue: accel.toUpperCase() })}</b>
              {(host.accel_reason || host.accel_code) && (
                <>
                  {' · '}
                  {host.accel_code
                    ? t(`host.accelWhy.${host.accel_code}`, { defaultValue: host.accel_reason ?? host.accel_code })
                    : host.accel_reason}
                </>
              )}
            </span>,
          ],
          [t('host.cpus'), format.number(host.cpus)],
          ['libvirt', host.libvirt_version],
          ['QEMU', host.hypervisor_version?.replace(/^QEMU /, '')],
          [t('host.hostname'), host.hostname],
          [t('host.address'), host.uri],
          [t('nav.desktops'), t('host.desktops', { running: host.desktops.running, total: host.desktops.total })],
          [t('host.seen'), <Ago key="seen" at={host.seen_at} />],
        ]}
      />
      {change.isError && <ErrorPanel error={change.error} />}
      <Group align="end">
        <Select
          label={t('host.accelPolicy')}
          size="xs"
          value={host.accel_policy}
          onChange={(value) => value && change.mutate({ accel_policy: value as Host['accel_policy'] })}
          data={['auto', 'kvm', 'tcg'].map((value) => ({ value, label: t(`host.policy.${value}`) }))}
          allowDeselect={false}
        />
        <Button
          size="xs"
          variant="default"
          loading={change.isPending}
          onClick={() => change.mutate({ enabled: host.state === 'disabled' })}
        >
          {t(host.state === 'disabled' ? 'host.enable' : 'host.disable')}
        </Button>
      </Group>
    </Stack>
  )
}

function Usage({ label, total, free }: { label: string; total?: number | null; free?: number | null }) {
  const { t } = useTranslation()
  const format = useFormat()
  if (!total || free === null || free === undefined) return null
  const part = Math.min(100, Math.max(0, ((total - free) / total) * 100))
  return (
    <div>
      <Group justify="space-between" mb={4}>
        <Text size="sm" fw={600}>
          {label}
        </Text>
        <Text size="sm" className="quiet">
          {t('host.freeOf', { free: format.mebibytes(free), total: format.mebibytes(total) })}
        </Text>
      </Group>
      <Progress value={part} color={part > 90 ? 'red.8' : undefined} aria-label={label} />
    </div>
  )
}
