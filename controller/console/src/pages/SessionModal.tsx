import { Button, Group, Modal, Stack } from '@mantine/core'
import type { ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import type { Session } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Facts } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'
import { SessionSlow } from './SessionSlow'

/** One session for support: who, where, and why it is slow for this officer. */
export function SessionModal({ session, onClose }: { session: Session; onClose: () => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
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
            ...(session.leased_at ? [[t('session.leased'), <Ago key="l" at={session.leased_at} both />] as [string, ReactNode]] : []),
            ...(session.gateway ? [[t('gateway.one'), session.gateway] as [string, string]] : []),
            ...(session.assist
              ? [[t('assist.by'), `${session.assist.supporter.display_name} · ${t(`assist.state.${session.assist.state}`)}`] as [string, string]]
              : []),
            ...(session.end_note ? [[t('session.reason'), session.end_note] as [string, string]] : []),
          ]}
        />
        <SessionSlow session={session} />
        {session.state === 'active' && (
          <Group>
            <Button variant="default" onClick={() => void navigate(`/sessions/${session.id}/assist`)}>
              {t('assist.watch')}
            </Button>
          </Group>
        )}
      </Stack>
    </Modal>
  )
}
