import { List, Progress, Stack, Text, Title } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import type { Session } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { useNow } from '../ui/time'

const STAGES = ['prepare', 'power', 'boot', 'display'] as const

const STAGE_OF: Record<string, number> = {
  planned: 0,
  creating: 0,
  defined: 0,
  rebuilding: 0,
  stopped: 1,
  stopping: 1,
  starting: 1,
  booting: 2,
  running: 3,
}

/** Share of the usual time that has passed; never "done" before it is. */
export function share(elapsed: number, estimate: number | null | undefined): number | undefined {
  if (!estimate || estimate <= 0) return undefined
  return Math.min(0.95, elapsed / estimate)
}

/** The place in the waiting line, why there is one, and what is known of how long. */
export function LineProgress({ session }: { session: Session }) {
  const { t } = useTranslation()
  const format = useFormat()
  const queue = session.queue
  if (!queue) return null
  return (
    <Stack gap="md" maw={460} w="100%" className="card" p="xl" role="status">
      <div>
        <Title order={2} fz={20}>
          {t('viewer.queue.title')}
        </Title>
        <Text size="sm">{t(`viewer.queue.cause.${queue.cause}`)}</Text>
      </div>
      <Text fz={40} fw={700} lh={1.1} data-testid="position">
        {t('viewer.queue.position', { position: queue.position, length: queue.length })}
      </Text>
      <Text size="sm">
        {queue.estimate_s
          ? t('viewer.queue.estimate', { estimate: format.duration(queue.estimate_s) })
          : t('viewer.queue.noEstimate')}
      </Text>
      <Text size="sm" className="quiet">
        {t('viewer.queue.keep')}
      </Text>
    </Stack>
  )
}

export function StartProgress({ session }: { session: Session | undefined }) {
  const { t } = useTranslation()
  const format = useFormat()
  const now = useNow(1000)
  const state = session?.desktop?.state ?? 'planned'
  const stage = STAGE_OF[state] ?? 0
  const step = session?.step
  const elapsed = step ? Math.max(0, (now.getTime() - Date.parse(step.started_at)) / 1000) : 0
  const part = share(elapsed, step?.estimate_s)
  const late = step?.estimate_s ? elapsed > step.estimate_s : false
  return (
    <Stack gap="md" maw={460} w="100%" className="card" p="xl" role="status">
      <div>
        <Title order={2} fz={20}>
          {t(stage === 3 ? 'viewer.joining' : 'viewer.starting')}
        </Title>
        {session?.desktop && (
          <Text size="sm" className="quiet">
            {session.desktop.name}
          </Text>
        )}
      </div>
      <Progress
        value={(part ?? 1) * 100}
        striped={part === undefined}
        animated={part === undefined}
        size="lg"
        aria-label={t('viewer.starting')}
      />
      <List listStyleType="none" spacing={4} size="sm">
        {STAGES.map((name, i) => (
          <List.Item key={name} aria-current={i === stage ? 'step' : undefined}>
            <span className={i > stage ? 'quiet' : undefined} style={{ fontWeight: i === stage ? 650 : 400 }}>
              {i < stage ? '✓ ' : i === stage ? '● ' : '○ '}
              {t(`viewer.stage.${name}`)}
            </span>
          </List.Item>
        ))}
      </List>
      <Text size="sm">
        {step
          ? t(step.estimate_s ? (late ? 'viewer.late' : 'viewer.elapsedOf') : 'viewer.elapsed', {
              elapsed: format.duration(elapsed),
              estimate: format.duration(step.estimate_s),
            })
          : t(stage === 3 ? 'viewer.almost' : 'viewer.asking')}
      </Text>
      <Text size="sm" className="quiet">
        {t('viewer.doNotSwitchOff')}
      </Text>
    </Stack>
  )
}
