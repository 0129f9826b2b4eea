import { AppShell, Burger, Button, Group, Menu, NavLink, Text } from '@mantine/core'
import { useDisclosure } from '@mantine/hooks'
import { useEffect } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, Outlet, useLocation } from 'react-router'
import { Icon } from '../ui/icons'
import { LanguageSwitch } from './LanguageSwitch'
import { useLink } from './live'
import { navigation } from './navigation'
import { useMe, useSignIn } from './session'

/** Header, navigation by role, and the page. Officers get no side bar: they have one page. */
export function Shell() {
  const { t } = useTranslation()
  const me = useMe()
  const { signOut } = useSignIn()
  const [opened, { toggle, close }] = useDisclosure(false)
  const { pathname } = useLocation()
  const link = useLink()
  const items = navigation[me.user.role]
  const bar = items.length > 1

  useEffect(close, [pathname, close])

  return (
    <AppShell
      header={{ height: 56 }}
      navbar={bar ? { width: 232, breakpoint: 'md', collapsed: { mobile: !opened } } : undefined}
      padding={{ base: 'md', md: 'lg' }}
      styles={{
        main: { background: 'var(--tram-page)' },
        header: { background: 'var(--tram-card)' },
        navbar: { background: 'var(--tram-card)', overflowY: 'auto' },
      }}
    >
      <a className="skip" href="#content">
        {t('common.skip')}
      </a>
      <AppShell.Header px="md">
        <Group h="100%" justify="space-between" wrap="nowrap" gap="xs">
          <Group gap="xs" wrap="nowrap">
            {bar && (
              <Burger
                opened={opened}
                onClick={toggle}
                hiddenFrom="md"
                size="sm"
                aria-label={t('common.menu')}
                aria-expanded={opened}
              />
            )}
            <Link to="/" className="link" style={{ display: 'flex', gap: 8, alignItems: 'center' }}>
              <img src="/console/tram.svg" width={30} height={30} alt="" />
              <Text fw={700} fz="lg" component="span">
                Tram
              </Text>
            </Link>
          </Group>
          <Group gap="sm" wrap="nowrap">
            {link === 'lost' && (
              <span className="pill tone-warn" role="status">
                {t('common.liveLost')}
              </span>
            )}
            <Group visibleFrom="sm">
              <LanguageSwitch />
            </Group>
            <Menu position="bottom-end" width={230}>
              <Menu.Target>
                <Button variant="subtle" color="gray" px="xs" c="var(--mantine-color-text)">
                  <Text size="sm" fw={600} truncate maw={{ base: 110, sm: 220 }}>
                    {me.user.display_name || me.user.username}
                  </Text>
                </Button>
              </Menu.Target>
              <Menu.Dropdown>
                <Menu.Label c="var(--tram-quiet)">
                  {me.user.username} · {t(`role.${me.user.role}`)}
                  {me.user.site ? ` · ${me.user.site.name}` : ''}
                </Menu.Label>
                <Group hiddenFrom="sm" px="sm" py={6}>
                  <LanguageSwitch />
                </Group>
                <Menu.Item onClick={() => void signOut()} leftSection={<Icon name="out" />}>
                  {t('auth.signOut')}
                </Menu.Item>
                <Menu.Divider />
                <Menu.Label c="var(--tram-quiet)">{t('common.version', { version: me.version })}</Menu.Label>
              </Menu.Dropdown>
            </Menu>
          </Group>
        </Group>
      </AppShell.Header>
      {bar && (
        <AppShell.Navbar p="sm" aria-label={t('common.menu')}>
          {items.map((item) => {
            const active = item.to === '/' ? pathname === '/' : pathname.startsWith(item.to)
            return (
              <NavLink
                key={item.to}
                component={Link}
                to={item.to}
                label={t(item.label)}
                leftSection={<Icon name={item.icon} />}
                active={active}
                aria-current={active ? 'page' : undefined}
                variant="filled"
                py={6}
                mb={2}
                style={{ borderRadius: 'var(--mantine-radius-md)' }}
              />
            )
          })}
        </AppShell.Navbar>
      )}
      <AppShell.Main id="content" tabIndex={-1} style={{ outline: 'none' }}>
        <Outlet />
      </AppShell.Main>
    </AppShell>
  )
}
