import { Button, Group, Menu, Stack, Text, Title, VisuallyHidden } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useEffect, useRef, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import * as calls from '../api/calls'
import { useSignIn, useSupportPhone } from '../app/session'
import { Confirm } from '../ui/confirm'
import { ErrorPanel } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { useNow } from '../ui/time'
import type { View } from './machine'
import { clock } from '../i18n/format'
import { AssistNote } from './assist'
import { ClosingNote } from './closing'
import { useLiveSession } from './liveSession'
import { LineProgress, StartProgress } from './progress'
import { useViewer } from './useViewer'

/** Full-window desktop: the screen, a thin bar, and words whenever there is no screen. */
export function ViewerPage() {
  const { t } = useTranslation()
  const navigate = useNavigate()
  const { signOut } = useSignIn()
  const frame = useRef<HTMLDivElement>(null)
  const screen = useRef<HTMLDivElement>(null)
  const { view, rfb, quiet, retryNow, restart } = useViewer(screen)
  const phone = useSupportPhone()
  const [fit, setFit] = useState(true)
  const [ending, setEnding] = useState(false)
  const inputMethod = useInputMethodHint(frame, view.phase === 'open')

  useEffect(() => {
    document.title = `${t('desktop.one')} · Tram`
  }, [t])
  useEffect(() => {
    if (!rfb.current || view.phase !== 'open') return
    rfb.current.scaleViewport = fit
    rfb.current.clipViewport = !fit
  }, [fit, rfb, view.phase])

  const leave = () => void navigate('/')
  const sessionId = 'session' in view ? view.session?.id : undefined
  const open = view.phase === 'open'
  const live = useLiveSession(open ? sessionId : undefined)
  const name = 'session' in view ? view.session?.desktop?.name : undefined

  const fullScreen = async () => {
    if (document.fullscreenElement) return document.exitFullscreen()
    await frame.current?.requestFullscreen()
    // With the keyboard locked Alt+Tab, Escape and the Windows key reach the desktop too.
    const keyboard = (navigator as { keyboard?: { lock?: () => Promise<void> } }).keyboard
    await keyboard?.lock?.().catch(() => undefined)
    rfb.current?.focus()
  }

  return (
    <main className="viewer" ref={frame} data-phase={view.phase}>
      <VisuallyHidden component="h1">{t('desktop.one')}</VisuallyHidden>
      <div className="viewer-bar">
        <Text fw={600} size="sm" truncate style={{ flex: 1, minWidth: 60 }}>
          {name ?? t('desktop.one')}
        </Text>
        <span className={`pill tone-${open ? 'ok' : view.phase === 'lost' ? 'warn' : 'idle'}`} role="status">
          {t(`viewer.phase.${view.phase}`)}
        </span>
        <Group gap={6} wrap="nowrap" visibleFrom="sm">
          <Button size="compact-sm" variant="default" onClick={() => setFit(!fit)} disabled={!open}>
            {t(fit ? 'viewer.actualSize' : 'viewer.fit')}
          </Button>
          <Button size="compact-sm" variant="default" disabled={!open} onClick={() => rfb.current?.sendCtrlAltDel()}>
            Ctrl+Alt+Del
          </Button>
        </Group>
        <Button
          size="compact-sm"
          variant="default"
          onClick={() => void fullScreen()}
          aria-label={t('viewer.fullScreen')}
          leftSection={<Icon name="expand" size={16} />}
          visibleFrom="sm"
        >
          {t('viewer.fullScreen')}
        </Button>
        <Menu position="bottom-end" portalProps={{ target: frame.current ?? undefined }}>
          <Menu.Target>
            <Button size="compact-sm" variant="default" leftSection={<Icon name="out" size={16} />}>
              {t('viewer.leave')}
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item onClick={() => void fullScreen()} hiddenFrom="sm">
              {t('viewer.fullScreen')}
            </Menu.Item>
            <Menu.Item onClick={() => rfb.current?.sendCtrlAltDel()} disabled={!open} hiddenFrom="sm">
              Ctrl+Alt+Del
            </Menu.Item>
            <Menu.Item onClick={leave}>{t('viewer.disconnect')}</Menu.Item>
            <Menu.Item onClick={() => setEnding(true)} disabled={!sessionId}>
              {t('viewer.end')}
            </Menu.Item>
            <Menu.Divider />
            <Menu.Item onClick={() => void signOut()}>{t('auth.signOut')}</Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </div>
      <div className="viewer-screen">
        <div ref={screen} className="viewer-canvas" data-testid="screen" />
        <Over view={view} retryNow={retryNow} restart={restart} leave={leave} />
        <ClosingNote session={live} />
        {live?.assist && <AssistNote sessionId={live.id} assist={live.assist} />}
        {quiet && open && (
          <div className="viewer-note" role="alert" data-testid="quiet">
            {t('viewer.quiet')} {t('errors.code', { code: 'K-102' })}
            {phone ? ` · ${t('errors.call', { phone })}` : ''}
          </div>
        )}
        {inputMethod && open && (
          <div className="viewer-note" role="status">
            {t('viewer.inputMethod')}
          </div>
        )}
      </div>
      <Confirm
        opened={ending}
        title={t('viewer.end')}
        action={t('viewer.end')}
        danger
        onClose={() => setEnding(false)}
        onConfirm={async () => {
          if (sessionId) await calls.endSession(sessionId)
          leave()
        }}
      >
        {t('viewer.endAsk')}
      </Confirm>
    </main>
  )
}

function Over({
  view,
  retryNow,
  restart,
  leave,
}: {
  view: View
  retryNow: () => void
  restart: (takeOver?: boolean) => void
  leave: () => void
}) {
  const { t } = useTranslation()
  const phone = useSupportPhone()
  const now = useNow(500)
  switch (view.phase) {
    case 'open':
      return null
    case 'connecting':
    case 'waiting':
    case 'ticket':
    case 'dialling': {
      const again = 'attempt' in view && view.attempt > 0
      return (
        <div className="viewer-over">
          {again ? (
            <Message title={t('viewer.lostTitle')} text={t('viewer.reconnecting')} />
          ) : 'session' in view && view.session.queue ? (
            <LineProgress session={view.session} />
          ) : (
            <StartProgress session={'session' in view ? view.session : undefined} />
          )}
        </div>
      )
    }
    case 'elsewhere': {
      const { kind, name, since } = view.place
      return (
        <div className="viewer-over">
          <Message
            title={t('viewer.elsewhere.title')}
            text={t(`viewer.elsewhere.${name ? 'named' : kind}`, { name, since: clock(since) })}
            code="S-106"
            phone={phone}
          >
            <Button onClick={() => restart(true)}>{t('viewer.takeBack')}</Button>
            <Button variant="default" onClick={leave}>
              {t('viewer.elsewhere.leave')}
            </Button>
          </Message>
        </div>
      )
    }
    case 'lost': {
      // Date.now(), as the machine uses: this is the browser's own timer, not the controller's.
      void now
      const seconds = Math.max(0, Math.ceil((view.retryAt - Date.now()) / 1000))
      return (
        <div className="viewer-over">
          <Message
            title={t(view.cause === 'gateway' ? 'viewer.gatewayTitle' : 'viewer.lostTitle')}
            text={t(view.cause === 'gateway' ? 'viewer.gatewayText' : 'viewer.lostText', { seconds })}
            code={view.cause === 'gateway' ? 'G-503' : 'K-102'}
            phone={phone}
          >
            <Button onClick={retryNow}>{t('viewer.retryNow')}</Button>
            <Button variant="default" onClick={leave}>
              {t('viewer.back')}
            </Button>
          </Message>
        </div>
      )
    }
    case 'closed':
      return (
        <div className="viewer-over">
          <Message
            title={t(`viewer.closed.${view.reason}.title`)}
            text={<WhyClosed view={view} />}
            code={view.code}
            phone={phone}
          >
            <Button onClick={() => restart(view.reason === 'taken')}>{t(view.reason === 'taken' ? 'viewer.takeBack' : 'viewer.again')}</Button>
            <Button variant="default" onClick={leave}>
              {t('viewer.back')}
            </Button>
          </Message>
        </div>
      )
    case 'failed':
      return (
        <div className="viewer-over">
          <Stack maw={520} w="100%">
            <ErrorPanel error={view.error} onRetry={() => restart()} title={t('viewer.failed')} />
            <Button variant="default" onClick={leave}>
              {t('viewer.back')}
            </Button>
          </Stack>
        </div>
      )
  }
}

/** What closed it, in the controller's own words where it knows more than the close code. */
function WhyClosed({ view }: { view: View & { phase: 'closed' } }) {
  const { t } = useTranslation()
  const id = view.session?.id
  const ended = view.reason === 'ended'
  const query = useQuery({ queryKey: ['session', id], queryFn: () => calls.session(id ?? ''), enabled: ended && !!id, retry: 1, gcTime: 0 })
  const usual = t(`viewer.closed.${view.reason}.text`)
  if (!ended || !query.data) return usual
  return (
    <>
      {t(`viewer.ended.${query.data.end_reason}`, { defaultValue: usual })}
      {query.data.end_note ? ` ${t('viewer.endedNote', { note: query.data.end_note })}` : ''}
    </>
  )
}

function Message({
  title,
  text,
  code,
  phone,
  children,
}: {
  title: string
  text: React.ReactNode
  code?: string
  phone?: string
  children?: React.ReactNode
}) {
  const { t } = useTranslation()
  return (
    <Stack className="card" p="xl" maw={480} gap="sm" role="alert">
      <Title order={2} fz={20}>
        {title}
      </Title>
      <Text>{text}</Text>
      {code && (
        <Text size="sm" className="quiet">
          {t('errors.code', { code })}
          {phone ? ` · ${t('errors.call', { phone })}` : ''}
        </Text>
      )}
      {children && <Group mt="xs">{children}</Group>}
    </Stack>
  )
}

/** True for a while after a key that this computer's own input method has taken for itself. */
function useInputMethodHint(frame: React.RefObject<HTMLElement | null>, active: boolean): boolean {
  const [seen, setSeen] = useState(0)
  const now = useNow(2000)
  useEffect(() => {
    const element = frame.current
    if (!element || !active) return
    const look = (event: KeyboardEvent) => {
      if (event.isComposing || event.key === 'Process' || event.keyCode === 229) setSeen(Date.now())
    }
    element.addEventListener('keydown', look, true)
    return () => element.removeEventListener('keydown', look, true)
  }, [frame, active])
  void now
  return Date.now() - seen < 12_000
}
