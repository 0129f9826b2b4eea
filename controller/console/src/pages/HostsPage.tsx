import { Button, Group, Modal, Progress, Select, SimpleGrid, Stack, Text, Title } from '@mantine/core'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Host, HostChange } from '../api/types'
import { useMe } from '../app/session'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { Facts, Page } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago, Exact } from '../ui/time'
import { HostForm, nodeHost } from './HostForm'
import { NodeFiles } from './NodeFiles'

export function HostsPage() {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.hosts, queryFn: calls.hosts })
  const operator = useMe().user.role === 'operator'
  const [adding, setAdding] = useState(false)
  return (
    <Page
      title={t('nav.hosts')}
      lead={t('host.lead')}
      actions={
        operator && (
          <Button leftSection={<Icon name="plus" />} onClick={() => setAdding(true)}>
            {t('host.add')}
          </Button>
        )
      }
    >
      <HostForm opened={adding} onClose={() => setAdding(false)} />
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
  const operator = useMe().user.role === 'operator'
  const [removing, setRemoving] = useState(false)
  const accel = host.accel ?? 'unknown'
  const closed = host.state === 'disabled'
  return (
    <Stack className="card" p="lg" gap="md" component="section" aria-label={host.name} data-host={host.name}>
      <Group justify="space-between">
        <Title order={2} fz={18}>
          {host.name}
        </Title>
        <StatePill group="host.state" state={host.state} />
      </Group>
      {host.state_reason && <Text size="sm">{host.state_reason}</Text>}
      {host.draining && (
        <Text size="sm" data-testid="draining">
          {t(host.desktops.total > 0 ? 'host.draining' : 'host.drained', { count: host.desktops.total })}
        </Text>
      )}
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
          ...(host.certificate_until
            ? [[t('host.certificate'), <Exact key="certificate" at={host.certificate_until} />] as [string, ReactNode]]
            : []),
        ]}
      />
      {change.isError && <ErrorPanel error={change.error} />}
      {operator && (
        <Group align="end">
          <Select
            label={t('host.accelPolicy')}
            size="xs"
            value={host.accel_policy}
            onChange={(value) => value && change.mutate({ accel_policy: value as Host['accel_policy'] })}
            data={['auto', 'kvm', 'tcg'].map((value) => ({ value, label: t(`host.policy.${value}`) }))}
            allowDeselect={false}
          />
          <Button size="xs" variant="default" loading={change.isPending} onClick={() => change.mutate({ enabled: closed })}>
            {t(closed ? 'host.enable' : 'host.disable')}
          </Button>
          {!host.draining && host.desktops.total > 0 && (
            <Button size="xs" variant="default" loading={change.isPending} onClick={() => change.mutate({ drain: true })}>
              {t('host.drain')}
            </Button>
          )}
          {host.uri.startsWith('node:') && <NodeButton host={host} />}
          {host.desktops.total === 0 && (
            <Button size="xs" variant="default" color="red.9" onClick={() => setRemoving(true)}>
              {t('host.remove')}
            </Button>
          )}
        </Group>
      )}
      <Confirm
        opened={removing}
        title={t('host.removeTitle', { name: host.name })}
        action={t('host.remove')}
        danger
        typed={host.name}
        onConfirm={async () => {
          await calls.removeHost(host.id)
          await client.invalidateQueries({ queryKey: keys.hosts })
        }}
        onClose={() => setRemoving(false)}
      >
        {t('host.removeText')}
      </Confirm>
    </Stack>
  )
}

/** Issues the files of a node that is there anew: for a host that was set up again, or a key that somebody saw. */
function NodeButton({ host }: { host: Host }) {
  const { t } = useTranslation()
  const issue = useMutation({ mutationFn: () => calls.issueNode(host.name, [nodeHost(host.uri)]) })
  return (
    <>
      <Button size="xs" variant="default" loading={issue.isPending} onClick={() => issue.mutate()}>
        {t('node.again')}
      </Button>
      <Modal
        opened={issue.isSuccess || issue.isError}
        onClose={issue.reset}
        title={t('node.again')}
        size="lg"
        closeOnClickOutside={false}
        closeButtonProps={{ 'aria-label': t('common.close') }}
      >
        {issue.data && <NodeFiles name={host.name} files={issue.data} />}
        {issue.isError && <ErrorPanel error={issue.error} />}
      </Modal>
    </>
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
