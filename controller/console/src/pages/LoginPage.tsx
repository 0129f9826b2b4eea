import { Button, Center, PasswordInput, Stack, Text, TextInput, Title } from '@mantine/core'
import { type FormEvent, useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useSignIn } from '../app/session'
import { LanguageSwitch } from '../app/LanguageSwitch'
import { ErrorPanel } from '../ui/feedback'

export function LoginPage() {
  const { t } = useTranslation()
  const { signIn, expired } = useSignIn()
  const [username, setUsername] = useState('')
  const [password, setPassword] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()

  useEffect(() => {
    document.title = `${t('auth.title')} · Tram`
  }, [t])

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    try {
      await signIn(username.trim(), password)
    } catch (failure) {
      setError(failure)
      setPassword('')
      setBusy(false)
    }
  }

  return (
    <Center mih="100dvh" p="md" component="main">
      <Stack w="100%" maw={400} gap="lg">
        <Stack gap={4} align="center">
          <img src="/console/tram.svg" width={52} height={52} alt="" />
          <Title order={1} fz={26}>
            {t('auth.title')}
          </Title>
          <Text className="quiet" size="sm" ta="center">
            {t('auth.lead')}
          </Text>
        </Stack>
        <form onSubmit={(event) => void submit(event)} className="card">
          <Stack p="xl" gap="md">
            {expired && error === undefined && (
              <Text size="sm" role="status" fw={600}>
                {t('auth.expired')}
              </Text>
            )}
            {error !== undefined && <ErrorPanel error={error} title={t('auth.failed')} />}
            <TextInput
              label={t('auth.username')}
              value={username}
              onChange={(event) => setUsername(event.currentTarget.value)}
              autoComplete="username"
              autoCapitalize="none"
              spellCheck={false}
              autoFocus
              size="md"
            />
            <PasswordInput
              label={t('auth.password')}
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
              autoComplete="current-password"
              visibilityToggleButtonProps={{ 'aria-label': t('auth.showPassword'), tabIndex: 0 }}
              size="md"
            />
            <Button type="submit" size="md" loading={busy} disabled={!username.trim() || !password}>
              {t('auth.signIn')}
            </Button>
          </Stack>
        </form>
        <Center>
          <LanguageSwitch />
        </Center>
      </Stack>
    </Center>
  )
}
