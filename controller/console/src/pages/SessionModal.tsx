import { Button, Group, Modal, Stack, Text } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import type { Session } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Facts } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'

type Part = Session['experience']['segments'][number]

/** A bar ends at the right edge at three times what is felt; the mark stands at what is felt. */
const FULL = 3

/** One session for support: who, where, and why it is slow for this officer. */
export function SessionModal({ session, onClose }: { session: Session; onClose: () => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
  const { segments, guilty } = session.experience
  const blamed = segments.find((part) => part.name === guilty)
  return (
    <Modal
      opened
      size="lg"
      onClose={onClose}
      title={t('session.detail', { user: session.user.username })}
      closeButtonProps={{ 'aria-label': t('common.close') }}
    >
      <Stack gap="md">
        <Facts
          rows={[
            [t('common.state'), <StatePill key="s" group="session.state" state={session.state} />],
            [t('desktop.one'), session.desktop.name || '—'],
            [t('session.opened'), <Ago key="o" at={session.created_at} both />],
            [t('session.resumes'), format.number(session.resumes)],
            ...(session.assist
              ? [[t('assist.by'), `${session.assist.supporter.display_name} · ${t(`assist.state.${session.assist.state}`)}`] as [string, string]]
              : []),
            ...(session.end_note ? [[t('session.reason'), session.end_note] as [string, string]] : []),
          ]}
        />
        <Text fw={650} role="status" data-testid="guilty">
          {blamed
            ? t(`session.slow.blame.${blamed.owner}`, { part: t(`session.slow.part.${blamed.name}`) })
            : t(segments.length ? 'session.slow.fine' : 'session.slow.nothing')}
        </Text>
        <Stack gap={6} component="ul" m={0} p={0} style={{ listStyle: 'none' }}>
          {segments.map((part) => (
            <Bar key={part.name} part={part} guilty={part.name === guilty} />
          ))}
        </Stack>
        {session.state === 'active' && (
          <Group>
            <Button variant="default" onClick={() => void navigate(`/sessions/${session.id}/assist`)}>
              {t('assist.watch')}
            </Button>
          </Group>
        )}
        {segments.length > 0 && (
          <Text size="xs" className="quiet">
            {t('session.slow.legend')}
          </Text>
        )}
      </Stack>
    </Modal>
  )
}

function Bar({ part, guilty }: { part: Part; guilty: boolean }) {
  const { t } = useTranslation()
  const format = useFormat()
  const share = Math.min(1, part.ms / (part.limit_ms * FULL)) * 100
  const time = part.ms < 10_000 ? `${format.number(part.ms)} ms` : format.duration(part.ms / 1000)
  return (
    <li className="segment" data-guilty={guilty || undefined}>
      <span>{t(`session.slow.part.${part.name}`)}</span>
      <span className="segment-track" aria-hidden="true">
        <span className="segment-bar" style={{ width: `${Math.max(1, share)}%` }} />
        <span className="segment-mark" style={{ left: `${100 / FULL}%` }} />
      </span>
      <b>{guilty ? `⚠ ${time}` : time}</b>
    </li>
  )
}
