import { ActionIcon, Button, Group, Menu, Modal, PasswordInput, Select, Stack, TextInput, VisuallyHidden } from '@mantine/core'
import { useForm } from '@mantine/form'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { asProblem } from '../api/problem'
import type { Role, User, UserPatch } from '../api/types'
import { useMe } from '../app/session'
import { Confirm } from '../ui/confirm'
import { fieldErrors, problemText } from '../ui/errors'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { done, refused } from '../ui/notify'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { SiteSelect } from '../ui/SiteSelect'
import { StatePill } from '../ui/state'
import { byText, DataTable, Two } from '../ui/table'
import { matches } from '../ui/text'
import { Ago, useNow } from '../ui/time'

const LEAST_PASSWORD = 12

export function UsersPage() {
  const { t } = useTranslation()
  const client = useQueryClient()
  const myId = useMe().user.id
  const now = useNow(30_000)
  const [filter, setFilter] = useState('')
  const [creating, setCreating] = useState(false)
  const [disabling, setDisabling] = useState<User>()
  const [password, setPassword] = useState<User>()
  const query = useQuery({ queryKey: keys.users, queryFn: calls.users })

  const columns = useMemo<ColumnDef<User>[]>(() => {
    const change = async (user: User, values: UserPatch) => {
      try {
        await calls.changeUser(user.id, values)
        done(t('user.changed', { name: user.username }))
        await client.invalidateQueries({ queryKey: keys.users })
      } catch (error) {
        refused(problemText(t, error))
      }
    }
    return [
      {
        id: 'username',
        header: t('user.name'),
        accessorFn: (row) => row.username,
        sortingFn: byText((row) => row.username),
        cell: ({ row }) => <Two main={row.original.display_name || row.original.username} sub={row.original.username} />,
      },
      {
        id: 'role',
        header: t('user.role'),
        accessorFn: (row) => row.role,
        meta: { width: 150, from: 'sm' },
        cell: ({ row }) => t(`role.${row.original.role}`),
      },
      {
        id: 'site',
        header: t('user.scope'),
        accessorFn: (row) => row.site?.name ?? '',
        sortingFn: byText((row) => row.site?.name),
        meta: { from: 'md' },
        cell: ({ row }) =>
          row.original.site ? <Two main={row.original.site.name} sub={row.original.site.district} /> : t('user.everywhere'),
      },
      {
        id: 'state',
        header: t('common.state'),
        accessorFn: (row) => (row.disabled ? 'disabled' : 'enabled'),
        meta: { width: 150 },
        cell: ({ row }) => <StatePill group="user.state" state={stateOf(row.original, now)} />,
      },
      {
        id: 'login',
        header: t('user.lastLogin'),
        accessorFn: (row) => row.last_login_at ?? '',
        meta: { width: 150, from: 'lg' },
        cell: ({ row }) => <Ago at={row.original.last_login_at} />,
      },
      {
        id: 'actions',
        header: () => <VisuallyHidden>{t('common.actions')}</VisuallyHidden>,
        enableSorting: false,
        meta: { width: 60, narrow: 52 },
        cell: ({ row: { original: user } }) => (
          <Menu position="bottom-end" width={210}>
            <Menu.Target>
              <ActionIcon
                variant="subtle"
                color="gray"
                c="var(--mantine-color-text)"
                aria-label={t('user.actionsOf', { name: user.username })}
              >
                <Icon name="more" />
              </ActionIcon>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Item onClick={() => setPassword(user)}>{t('user.newPassword')}</Menu.Item>
              <Menu.Item disabled={stateOf(user, now) !== 'locked'} onClick={() => void change(user, { unlock: true })}>
                {t('user.unlock')}
              </Menu.Item>
              {user.disabled ? (
                <Menu.Item onClick={() => void change(user, { disabled: false })}>{t('user.enable')}</Menu.Item>
              ) : (
                <Menu.Item disabled={user.id === myId} onClick={() => setDisabling(user)}>
                  {t('user.disable')}
                </Menu.Item>
              )}
            </Menu.Dropdown>
          </Menu>
        ),
      },
    ]
  }, [t, client, myId, now])

  return (
    <Page
      title={t('nav.users')}
      lead={t('user.lead')}
      actions={
        <>
          <SearchBox value={filter} onChange={setFilter} placeholder={t('user.filter')} />
          <Button leftSection={<Icon name="plus" />} onClick={() => setCreating(true)}>
            {t('user.create')}
          </Button>
        </>
      }
    >
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('user.none')} />
          ) : (
            <DataTable
              label={t('nav.users')}
              rows={list.items.filter((u) => matches(filter, u.username, u.display_name, u.site?.name))}
              columns={columns}
              rowId={(row) => row.id}
              initialSort={[{ id: 'username', desc: false }]}
            />
          )
        }
      </Answer>
      <Modal opened={creating} onClose={() => setCreating(false)} title={t('user.create')} closeButtonProps={{ 'aria-label': t('common.close') }}>
        <UserForm onClose={() => setCreating(false)} />
      </Modal>
      {disabling && (
        <Confirm
          opened
          danger
          title={t('user.disable')}
          action={t('user.disable')}
          onClose={() => setDisabling(undefined)}
          onConfirm={async () => {
            await calls.changeUser(disabling.id, { disabled: true })
            done(t('user.changed', { name: disabling.username }))
            await client.invalidateQueries({ queryKey: keys.users })
          }}
        >
          {t('user.disableAsk', { name: disabling.username })}
        </Confirm>
      )}
      {password && <NewPassword user={password} onClose={() => setPassword(undefined)} />}
    </Page>
  )
}

function stateOf(user: User, now: Date): 'disabled' | 'locked' | 'enabled' {
  if (user.disabled) return 'disabled'
  return user.locked_until && Date.parse(user.locked_until) > now.getTime() ? 'locked' : 'enabled'
}

function NewPassword({ user, onClose }: { user: User; onClose: () => void }) {
  const { t } = useTranslation()
  const [value, setValue] = useState('')
  return (
    <Confirm
      opened
      title={t('user.newPassword')}
      action={t('user.newPassword')}
      onClose={onClose}
      onConfirm={async () => {
        await calls.changeUser(user.id, { password: value })
        done(t('user.changed', { name: user.username }))
      }}
    >
      <PasswordInput
        label={t('auth.password')}
        description={t('user.passwordHint', { least: LEAST_PASSWORD })}
        value={value}
        onChange={(event) => setValue(event.currentTarget.value)}
        autoComplete="new-password"
        visibilityToggleButtonProps={{ 'aria-label': t('auth.showPassword') }}
      />
    </Confirm>
  )
}

function UserForm({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const form = useForm({
    initialValues: { username: '', display_name: '', role: 'officer' as Role, site_code: '', password: '' },
    validate: {
      username: (value) => (/^[a-z0-9][a-z0-9._-]{1,62}$/.test(value) ? null : t('user.badName')),
      display_name: (value) => (value.trim() ? null : t('user.needDisplay')),
      site_code: (value, values) => (values.role === 'officer' && !value ? t('pool.needSite') : null),
      password: (value) => (value.length >= LEAST_PASSWORD ? null : t('user.passwordHint', { least: LEAST_PASSWORD })),
    },
  })
  const create = useMutation({
    mutationFn: calls.createUser,
    onSuccess: async (_, sent) => {
      done(t('user.created', { name: sent.username }))
      await client.invalidateQueries({ queryKey: keys.users })
      onClose()
    },
    onError: (error) => form.setErrors(fieldErrors(t, asProblem(error))),
  })
  return (
    <form
      noValidate
      onSubmit={form.onSubmit((values) =>
        create.mutate({
          username: values.username,
          display_name: values.display_name.trim(),
          role: values.role,
          site_code: values.site_code || null,
          password: values.password,
        }),
      )}
    >
      <Stack>
        <TextInput label={t('auth.username')} withAsterisk autoComplete="off" data-autofocus {...form.getInputProps('username')} />
        <TextInput label={t('user.display')} withAsterisk autoComplete="off" {...form.getInputProps('display_name')} />
        <Select
          label={t('user.role')}
          data={['officer', 'support', 'operator'].map((value) => ({ value, label: t(`role.${value}`) }))}
          allowDeselect={false}
          {...form.getInputProps('role')}
        />
        <SiteSelect
          label={t('user.scope')}
          required={form.values.role === 'officer'}
          value={form.values.site_code}
          onChange={(code) => form.setFieldValue('site_code', code)}
          error={form.errors.site_code}
          level={form.values.role === 'officer' ? 'commune' : ''}
        />
        <PasswordInput
          label={t('auth.password')}
          description={t('user.passwordHint', { least: LEAST_PASSWORD })}
          withAsterisk
          autoComplete="new-password"
          visibilityToggleButtonProps={{ 'aria-label': t('auth.showPassword') }}
          {...form.getInputProps('password')}
        />
        {create.isError && <ErrorPanel error={create.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            {t('common.cancel')}
          </Button>
          <Button type="submit" loading={create.isPending}>
            {t('user.create')}
          </Button>
        </Group>
      </Stack>
    </form>
  )
}
