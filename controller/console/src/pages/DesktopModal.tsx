import { Button, Modal, Progress, Stack, Text } from '@mantine/core'
import { useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import type { Desktop } from '../api/types'
import { useMe } from '../app/session'
import { useFormat } from '../i18n/useFormat'
import { Facts } from '../ui/page'
import { StatePill, type Tone } from '../ui/state'
import { Ago, useNow } from '../ui/time'
import { share } from '../viewer/progress'

const MOVING = new Set(['planned', 'creating', 'defined', 'starting', 'booting', 'stopping', 'rebuilding', 'deleting'])

/** The state with what is being done about it: a bar while it moves, the reason when it failed. */
export function StateDetail({ desktop }: { desktop: Desktop }) {
  const { t } = useTranslation()
  const wait = desktop.last_error?.text
  // A planned one with a reason waits for a host; nothing moves.
  const rests = (desktop.state === 'defined' && desktop.desired === 'stopped') || (desktop.state === 'planned' && !!wait)
  const moving = MOVING.has(desktop.state) && !rests
  return (
    <span style={{ display: 'inline-flex', alignItems: 'center', gap: 8, maxWidth: '100%' }} title={wait ?? undefined}>
      <StatePill group="desktop.state" state={desktop.state} tone={moving ? undefined : settledTone(desktop)} />
      {moving ? (
        <Moving desktop={desktop} />
      ) : (
        wait && (
          <small className="quiet" style={{ overflow: 'hidden', textOverflow: 'ellipsis' }}>
            {desktop.last_error?.code ? t(`errors.${desktop.last_error.code}`, { defaultValue: wait }) : wait}
          </small>
        )
      )}
    </span>
  )
}

/** Made but never started is at rest, not under way. */
function settledTone(desktop: Desktop): Tone | undefined {
  return desktop.state === 'defined' ? 'idle' : undefined
}

function Moving({ desktop }: { desktop: Desktop }) {
  const { t } = useTranslation()
  const now = useNow(1000)
  const since = desktop.step_started_at ? (now.getTime() - Date.parse(desktop.step_started_at)) / 1000 : 0
  const part = desktop.progress ?? share(since, desktop.estimate_s)
  if (part === undefined) return null
  return <Progress w={80} size="sm" value={Math.max(4, part * 100)} aria-label={t(`desktop.state.${desktop.state}`)} />
}

export function DesktopModal({ desktop, onClose }: { desktop: Desktop | undefined; onClose: () => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const operator = useMe().user.role === 'operator'
  return (
    <Modal
      opened
      onClose={onClose}
      size="lg"
      title={desktop?.name ?? t('desktop.one')}
      closeButtonProps={{ 'aria-label': t('common.close') }}
    >
      {desktop === undefined ? (
        <Text>{t('desktop.goneNow')}</Text>
      ) : (
        <Stack>
          <StateDetail desktop={desktop} />
          {operator && desktop.state === 'running' && <Screenshot desktop={desktop} />}
          <Facts
            rows={[
              [t('pool.one'), desktop.pool.name],
              [t('site.one'), `${desktop.site.name}${desktop.site.district ? `, ${desktop.site.district}` : ''}`],
              [t('host.one'), desktop.host?.name],
              [t('desktop.user'), desktop.assigned_to?.username],
              [t('desktop.addresses'), desktop.addresses.join(', ') || '—'],
              [t('desktop.step'), desktop.step ? t(`desktop.state.${desktop.step}`, { defaultValue: desktop.step }) : '—'],
              [t('desktop.estimate'), desktop.estimate_s ? format.duration(desktop.estimate_s) : '—'],
              [
                t('desktop.lastError'),
                desktop.last_error
                  ? `${t(`errors.${desktop.last_error.code}`, { defaultValue: '' })} ${desktop.last_error.text} (${desktop.last_error.code})`
                  : '—',
              ],
              [t('desktop.attempts'), format.number(desktop.attempts)],
              [t('desktop.updated'), <Ago key="u" at={desktop.updated_at} both />],
            ]}
          />
        </Stack>
      )}
    </Modal>
  )
}

function Screenshot({ desktop }: { desktop: Desktop }) {
  const { t } = useTranslation()
  const [stamp, setStamp] = useState(() => Date.now())
  const [failed, setFailed] = useState(false)
  useEffect(() => setFailed(false), [stamp])
  return (
    <Stack gap="xs" align="flex-start">
      {failed ? (
        <Text size="sm" className="quiet">
          {t('desktop.noPicture')}
        </Text>
      ) : (
        <img
          src={calls.screenshotUrl(desktop.id, stamp)}
          alt={t('desktop.pictureOf', { name: desktop.name })}
          onError={() => setFailed(true)}
          style={{ width: '100%', border: '1px solid var(--tram-line)', borderRadius: 6, background: '#000', minHeight: 120 }}
        />
      )}
      <Button size="compact-sm" variant="default" onClick={() => setStamp(Date.now())}>
        {t('desktop.newPicture')}
      </Button>
    </Stack>
  )
}
