import { Anchor, Button, Checkbox, Group, Modal, NumberInput, Progress, Stack, Text } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { type FormEvent, useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useNavigate, useParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Desktop, Pool } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { typed } from '../ui/number'
import { Facts, Page } from '../ui/page'
import { StatePill } from '../ui/state'
import { Exact } from '../ui/time'
import { DesktopTable } from './DesktopTable'
import { MOST } from './PoolForm'
import { PolicyForm } from './PoolPolicy'

export function PoolPage() {
  const { id = '' } = useParams()
  const { t } = useTranslation()
  const pool = useQuery({ queryKey: keys.pool(id), queryFn: () => calls.pool(id) })
  const desktops = useQuery({ queryKey: keys.desktops, queryFn: calls.desktops })
  const mine = useMemo(() => desktops.data?.items.filter((d) => d.pool.id === id), [desktops.data, id])
  return (
    <Page
      title={pool.data?.name ?? t('pool.one')}
      lead={
        <Anchor component={Link} to="/pools" className="link">
          ← {t('nav.pools')}
        </Anchor>
      }
      actions={pool.data && pool.data.desired === 'present' && <Actions pool={pool.data} />}
    >
      <Answer query={pool}>
        {(data) => (
          <>
            <Growth pool={data} desktops={mine} />
            {data.problem && (
              <Text className="card" p="md" role="alert">
                {t(`errors.${data.problem.code}`, { defaultValue: data.problem.text })} ({data.problem.code})
              </Text>
            )}
            <div className="card" style={{ padding: 16 }}>
              <Facts
                rows={[
                  [t('site.one'), `${data.site.name}${data.site.district ? `, ${data.site.district}` : ''} (${data.site.code})`],
                  [t('pool.image'), `${data.image.name} ${data.image.version}`],
                  [t('pool.machine'), <Machine key="m" pool={data} />],
                  [t('pool.kind'), t(data.persistent ? 'pool.persistent' : 'pool.nonPersistent')],
                  [t('common.created'), <Exact key="c" at={data.created_at} />],
                ]}
              />
            </div>
            <Answer query={desktops}>
              {() =>
                mine?.length ? (
                  <DesktopTable rows={mine} inPool height="460px" />
                ) : (
                  <Empty title={t('pool.noDesktops')}>{t('pool.noDesktopsHint')}</Empty>
                )
              }
            </Answer>
          </>
        )}
      </Answer>
    </Page>
  )
}

function Machine({ pool }: { pool: Pool }) {
  const { t } = useTranslation()
  const format = useFormat()
  return (
    <>
      {t('pool.cpuCount', { count: pool.vcpus })} · {format.mebibytes(pool.memory_mib)}
    </>
  )
}

/** Done as asked; `defined` is a stop on the way unless the desktop is wanted off. */
const isReady = (d: Desktop) =>
  d.state === 'running' || d.state === 'stopped' || (d.state === 'defined' && d.desired === 'stopped')

/** Requested against made, counted from the live rows so that it moves with them. */
function Growth({ pool, desktops }: { pool: Pool; desktops: Desktop[] | undefined }) {
  const { t } = useTranslation()
  const format = useFormat()
  const running = desktops ? desktops.filter((d) => d.state === 'running').length : pool.running
  const ready = desktops ? desktops.filter(isReady).length : pool.ready
  const failed = desktops ? desktops.filter((d) => d.state === 'failed').length : pool.failed
  const byState = new Map<string, number>()
  for (const desktop of desktops ?? []) byState.set(desktop.state, (byState.get(desktop.state) ?? 0) + 1)
  const absent = pool.desired === 'absent'
  return (
    <Stack className="card" p="lg" gap="sm" role="status">
      <Group justify="space-between" align="end">
        <div className="figure" data-testid="growth">
          {format.number(ready)} <span className="quiet" style={{ fontSize: 18 }}>/ {format.number(pool.size)}</span>
        </div>
        <Text size="sm" className="quiet">
          {absent
            ? t('pool.deleting')
            : t('pool.growth', { running: format.number(running), failed: format.number(failed) })}
        </Text>
      </Group>
      <Progress.Root size="lg" aria-label={t('pool.ready')}>
        <Progress.Section value={pool.size ? (Math.min(ready, pool.size) / pool.size) * 100 : 100} aria-label={t('pool.ready')} />
        {failed > 0 && (
          <Progress.Section value={(failed / Math.max(1, pool.size)) * 100} color="red.8" aria-label={t('desktop.state.failed')} />
        )}
      </Progress.Root>
      <Group gap="xs">
        {[...byState].map(([state, count]) => (
          <Group gap={4} key={state}>
            <StatePill group="desktop.state" state={state} />
            <Text size="sm" fw={600} component="span">
              {format.number(count)}
            </Text>
          </Group>
        ))}
      </Group>
    </Stack>
  )
}

function Actions({ pool }: { pool: Pool }) {
  const { t } = useTranslation()
  const navigate = useNavigate()
  const client = useQueryClient()
  const [resizing, setResizing] = useState(false)
  const [deleting, setDeleting] = useState(false)
  const [limits, setLimits] = useState(false)
  const [force, setForce] = useState(false)
  return (
    <>
      <Button variant="default" onClick={() => setResizing(true)}>
        {t('pool.resize')}
      </Button>
      <Button variant="default" onClick={() => setLimits(true)}>
        {t('pool.policy.change')}
      </Button>
      <Button variant="default" c="light-dark(#9c1c1c, #ffa8a8)" onClick={() => setDeleting(true)}>
        {t('pool.delete')}
      </Button>
      {limits && <PolicyForm pool={pool} opened onClose={() => setLimits(false)} />}
      <Resize pool={pool} opened={resizing} onClose={() => setResizing(false)} />
      <Confirm
        opened={deleting}
        title={t('pool.delete')}
        action={t('pool.delete')}
        danger
        typed={pool.name}
        onClose={() => setDeleting(false)}
        onConfirm={async () => {
          await calls.deletePool(pool.id, force)
          await client.invalidateQueries({ queryKey: keys.pools })
          void navigate('/pools')
        }}
      >
        <Stack gap="sm">
          {t('pool.deleteAsk', { count: pool.size })}
          <Checkbox label={t('pool.force')} checked={force} onChange={(event) => setForce(event.currentTarget.checked)} />
        </Stack>
      </Confirm>
    </>
  )
}

function Resize({ pool, opened, onClose }: { pool: Pool; opened: boolean; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [size, setSize] = useState<number | string>(pool.size)
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const wanted = typed(size)
  const wrong = wanted === undefined || !Number.isInteger(wanted) || wanted < 0 || wanted > MOST
  const [tried, setTried] = useState(false)
  const shrink = !wrong && wanted < pool.size
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setTried(true)
    if (wrong) return
    setBusy(true)
    setError(undefined)
    try {
      const fresh = await calls.resizePool(pool.id, wanted)
      if (fresh) client.setQueryData(keys.pool(pool.id), fresh)
      void client.invalidateQueries({ queryKey: keys.pools })
      onClose()
    } catch (failure) {
      setError(failure)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Modal opened={opened} onClose={onClose} title={t('pool.resize')} closeButtonProps={{ 'aria-label': t('common.close') }}>
      <form onSubmit={(event) => void submit(event)}>
        <Stack>
          <NumberInput label={t('pool.size')} value={size} onChange={setSize} min={0} max={MOST} clampBehavior="none" allowDecimal={false} error={tried && wrong ? t('pool.badSize', { most: MOST }) : undefined} data-autofocus />
          {shrink && (
            <Text size="sm" fw={600}>
              {t('pool.shrink', { count: pool.size - Number(wanted) })}
            </Text>
          )}
          {error !== undefined && <ErrorPanel error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t('common.cancel')}
            </Button>
            <Button type="submit" loading={busy} color={shrink ? 'red.9' : undefined} disabled={typeof size !== 'number'}>
              {t('pool.resizeDo')}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
