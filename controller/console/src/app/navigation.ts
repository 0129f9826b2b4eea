import type { Role } from '../api/types'
import type { IconName } from '../ui/icons'

export interface NavItem {
  to: string
  label: string
  icon: IconName
}

const home: NavItem = { to: '/', label: 'nav.overview', icon: 'home' }
const hosts: NavItem = { to: '/hosts', label: 'nav.hosts', icon: 'server' }
const gateways: NavItem = { to: '/gateways', label: 'nav.gateways', icon: 'expand' }
const images: NavItem = { to: '/images', label: 'nav.images', icon: 'disc' }
const pools: NavItem = { to: '/pools', label: 'nav.pools', icon: 'stack' }
const desktops: NavItem = { to: '/desktops', label: 'nav.desktops', icon: 'screen' }
const incidents: NavItem = { to: '/incidents', label: 'nav.incidents', icon: 'alarm' }
const calls: NavItem = { to: '/calls', label: 'nav.calls', icon: 'headset' }
const offices: NavItem = { to: '/offices', label: 'nav.offices', icon: 'map' }
const then: NavItem = { to: '/time-travel', label: 'nav.then', icon: 'refresh' }
const sla: NavItem = { to: '/sla', label: 'nav.sla', icon: 'list' }
const endpoints: NavItem = { to: '/endpoints', label: 'nav.endpoints', icon: 'device' }
const updates: NavItem = { to: '/updates', label: 'nav.updates', icon: 'refresh' }
const tokens: NavItem = { to: '/tokens', label: 'nav.tokens', icon: 'key' }
const enrolments: NavItem = { to: '/enrolments', label: 'nav.enrolments', icon: 'check' }
const sessions: NavItem = { to: '/sessions', label: 'nav.sessions', icon: 'link' }
const sites: NavItem = { to: '/sites', label: 'nav.sites', icon: 'map' }
const notify: NavItem = { to: '/notify', label: 'nav.notify', icon: 'bell' }
const users: NavItem = { to: '/users', label: 'nav.users', icon: 'users' }
const audit: NavItem = { to: '/audit', label: 'nav.audit', icon: 'list' }

/** What each role finds in the side bar; the controller refuses the rest anyway. */
export const navigation: Record<Role, NavItem[]> = {
  operator: [home, incidents, calls, hosts, gateways, images, pools, desktops, sessions, endpoints, updates, tokens, enrolments, sites, offices, then, sla, notify, users, audit],
  support: [incidents, calls, endpoints, updates, tokens, enrolments, sessions, desktops, gateways, sites, offices, then, sla],
  officer: [{ to: '/', label: 'nav.desktop', icon: 'screen' }],
}
