import { Button, Group, Stack, Text, TextInput, Title, VisuallyHidden } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { type FormEvent, useEffect, useRef, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate, useParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { useMe } from '../app/session'
import { useFormat } from '../i18n/useFormat'
import { ErrorPanel } from '../ui/feedback'
import { useNow } from '../ui/time'
import { secondsUntil } from '../viewer/assist'
import { useAssistScreen, useLatestAssist } from '../viewer/useAssist'

/** Support watches an officer's screen: the question, the screen, and why it is over. */
export function AssistPage() {
  const { t } = useTranslation()
  const navigate = useNavigate()
  const me = useMe()
  const { id = '' } = useParams()
  const screen = useRef<HTMLDivElement>(null)
  const [mine, setMine] = useState<string>()
  const [error, setError] = useState<unknown>()
  const session = useQuery({ queryKey: keys.session(id), queryFn: () => calls.session(id) })
  const latest = useLatestAssist(id)
  const newest = latest.data?.items[0]
  // A page that was loaded anew takes up what it had asked for.
  const adopted = newest && newest.supporter.username === me.user.username && ['asked', 'allowed'].includes(newest.state)
  const known = mine ?? (adopted ? newest.id : undefined)
  const assist = latest.data?.items.find((one) => one.id === known)
  const view = useAssistScreen(screen, assist, id)
  const user = session.data?.user.username ?? '—'
  useEffect(() => {
    if (!mine && known) setMine(known)
  }, [mine, known])
  useEffect(() => {
    document.title = `${t('assist.watch')} · Tram`
  }, [t])

  const act = async (call: () => Promise<unknown>) => {
    setError(undefined)
    try {
      await call()
    } catch (failure) {
      setError(failure)
    }
    await latest.refetch()
  }
  const ask = (reason: string) => act(async () => setMine((await calls.askAssist(id, reason)).id))
  const stop = () => act(() => calls.endAssist(id))
  const live = assist && assist.state !== 'ended'
  return (
    <main className="viewer" data-assist={assist?.state ?? 'none'}>
      <VisuallyHidden component="h1">{t('assist.title', { user })}</VisuallyHidden>
      <div className="viewer-bar">
        <Text fw={600} size="sm" truncate style={{ flex: 1, minWidth: 60 }}>
          {t('assist.title', { user })}
        </Text>
        {assist?.state === 'active' && (
          <>
            <span className={`pill tone-${assist.control === 'granted' ? 'warn' : 'ok'}`} role="status">
              {t(assist.control === 'granted' ? 'assist.controlling' : 'assist.viewOnly')}
            </span>
            {assist.control !== 'granted' && (
              <Button
                size="compact-sm"
                variant="default"
                disabled={assist.control === 'asked'}
                onClick={() => void act(() => calls.askControl(id))}
              >
                {t(assist.control === 'asked' ? 'assist.controlAsked' : 'assist.askControl')}
              </Button>
            )}
          </>
        )}
        {live ? (
          <Button size="compact-sm" variant="default" onClick={() => void stop()}>
            {t(assist.state === 'asked' ? 'assist.cancel' : 'assist.stop')}
          </Button>
        ) : (
          <Button size="compact-sm" variant="default" onClick={() => void navigate('/sessions')}>
            {t('assist.back')}
          </Button>
        )}
      </div>
      <div className="viewer-screen">
        <div ref={screen} className="viewer-canvas" data-testid="screen" />
        {!view.open && (
          <div className="viewer-over">
            <Stack className="card" p="lg" gap="md" maw={520} w="100%">
              {!assist || assist.state === 'ended' ? (
                <AskForm ended={assist?.end_reason ?? undefined} ask={ask} />
              ) : (
                <Waiting user={user} due={assist.state === 'asked' ? assist.due_at : undefined} />
              )}
              {(error ?? view.error) !== undefined && <ErrorPanel error={error ?? view.error} />}
            </Stack>
          </div>
        )}
        {view.open && assist?.control === 'refused' && (
          <div className="viewer-note" role="status">
            {t('assist.controlRefused')}
          </div>
        )}
      </div>
    </main>
  )
}

function AskForm({ ended, ask }: { ended: string | undefined; ask: (reason: string) => Promise<void> }) {
  const { t } = useTranslation()
  const [reason, setReason] = useState('')
  const [busy, setBusy] = useState(false)
  const submit = (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    void ask(reason).finally(() => setBusy(false))
  }
  return (
    <form onSubmit={submit}>
      <Stack gap="md">
        {ended && (
          <div role="status">
            <Title order={2} fz={18}>
              {t('assist.over')}
            </Title>
            <Text size="sm">{t(`assist.end.${ended}`, { defaultValue: ended })}</Text>
          </div>
        )}
        <Text size="sm">{t('assist.lead')}</Text>
        <TextInput
          label={t('assist.reason')}
          description={t('assist.reasonHint')}
          value={reason}
          maxLength={200}
          required
          onChange={(event) => setReason(event.currentTarget.value)}
        />
        <Group justify="flex-end">
          <Button type="submit" loading={busy} disabled={!reason.trim()}>
            {t(ended ? 'assist.again' : 'assist.ask')}
          </Button>
        </Group>
      </Stack>
    </form>
  )
}

function Waiting({ user, due }: { user: string; due: string | undefined }) {
  const { t } = useTranslation()
  const format = useFormat()
  const now = useNow(500)
  return (
    <div role="status">
      <Title order={2} fz={18}>
        {t(due ? 'assist.asked' : 'assist.opening', { user })}
      </Title>
      {due && <Text size="sm">{t('assist.left', { left: format.duration(secondsUntil(due, now)) })}</Text>}
    </div>
  )
}
