import { Button, Group, Stack, Text, Title } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { SAFETY_MS } from '../live/events'
import { useMe, useSupportPhone } from '../app/session'
import { Confirm } from '../ui/confirm'
import { Answer } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { Facts } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago } from '../ui/time'
import { AssistNote } from '../viewer/assist'
import { AssistHistory } from './AssistHistory'

/** The officer's one page: a big button, and what is known of their desktop. */
export function OfficerPage() {
  const { t } = useTranslation()
  const navigate = useNavigate()
  const me = useMe()
  const phone = useSupportPhone()
  const query = useQuery({ queryKey: keys.sessions, queryFn: calls.sessions, refetchInterval: SAFETY_MS, refetchOnMount: 'always' })
  const live = query.data?.items.find((session) => session.state !== 'ended')
  const [ending, setEnding] = useState(false)

  useEffect(() => {
    document.title = `${t('desktop.one')} · Tram`
  }, [t])

  return (
    <Stack maw={640} mx="auto" gap="xl" pt={{ base: 'md', sm: 48 }}>
      <div>
        <Title order={1} fz={{ base: 24, sm: 30 }}>
          {t('officer.hello', { name: me.user.display_name })}
        </Title>
        {me.user.site && (
          <Text className="quiet">
            {me.user.site.name}
            {me.user.site.district ? ` · ${me.user.site.district}` : ''}
          </Text>
        )}
      </div>
      <Button
        size="xl"
        h={84}
        fz={22}
        leftSection={<Icon name="screen" size={30} />}
        onClick={() => void navigate('/desktop')}
        autoFocus
      >
        {t(live ? 'officer.back' : 'officer.open')}
      </Button>
      <Answer query={query} rows={2}>
        {() =>
          live ? (
            <Stack className="card" p="lg" gap="md">
              <Group justify="space-between">
                <Title order={2} fz={18}>
                  {t('officer.yourSession')}
                </Title>
                <StatePill group="session.state" state={live.state} />
              </Group>
              {live.assist && (
                <AssistNote sessionId={live.id} assist={live.assist} changed={() => void query.refetch()} />
              )}
              <Facts
                rows={[
                  [t('desktop.one'), live.desktop?.name],
                  [t('session.opened'), <Ago key="a" at={live.created_at} both />],
                  [t('session.lastActive'), <Ago key="b" at={live.last_active_at} />],
                ]}
              />
              <AssistHistory sessionId={live.id} live={live.assist?.id} />
              {live.state === 'disconnected' && <Text size="sm">{t('officer.kept')}</Text>}
              <Group>
                <Button variant="default" onClick={() => setEnding(true)}>
                  {t('viewer.end')}
                </Button>
              </Group>
            </Stack>
          ) : (
            <Text className="quiet">{t('officer.none')}</Text>
          )
        }
      </Answer>
      <Text size="sm" className="quiet">
        {t('officer.typing')}
        {phone ? ` ${t('errors.call', { phone })}.` : ''}
      </Text>
      <Confirm
        opened={ending}
        title={t('viewer.end')}
        action={t('viewer.end')}
        danger
        onClose={() => setEnding(false)}
        onConfirm={async () => {
          if (live) await calls.endSession(live.id)
          await query.refetch()
        }}
      >
        {t('viewer.endAsk')}
      </Confirm>
    </Stack>
  )
}
