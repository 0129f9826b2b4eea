import { Navigate, Route, Routes } from 'react-router'
import { AssistPage } from '../pages/AssistPage'
import { AuditPage } from '../pages/AuditPage'
import { CallPage } from '../pages/CallPage'
import { CallsPage } from '../pages/CallsPage'
import { DesktopsPage } from '../pages/DesktopsPage'
import { EndpointPage } from '../pages/EndpointPage'
import { EnrolmentPage } from '../pages/EnrolmentPage'
import { EnrolmentsPage } from '../pages/EnrolmentsPage'
import { EndpointsPage } from '../pages/EndpointsPage'
import { GatewaysPage } from '../pages/GatewaysPage'
import { HostsPage } from '../pages/HostsPage'
import { ImagesPage } from '../pages/ImagesPage'
import { IncidentPage } from '../pages/IncidentPage'
import { IncidentsPage } from '../pages/IncidentsPage'
import { NotifyPage } from '../pages/NotifyPage'
import { OfficesPage } from '../pages/OfficesPage'
import { OverviewPage } from '../pages/OverviewPage'
import { PoolPage } from '../pages/PoolPage'
import { PoolsPage } from '../pages/PoolsPage'
import { SessionsPage } from '../pages/SessionsPage'
import { SitesPage } from '../pages/SitesPage'
import { SlaPage } from '../pages/SlaPage'
import { TimeTravelPage } from '../pages/TimeTravelPage'
import { TokensPage } from '../pages/TokensPage'
import { UpdatesPage } from '../pages/UpdatesPage'
import { UsersPage } from '../pages/UsersPage'
import { Shell } from './Shell'

/** Pages of operators and support, in one lazy part. */
export default function StaffRoutes({ role }: { role: 'operator' | 'support' }) {
  const operator = role === 'operator'
  return (
    <Routes>
      <Route path="/sessions/:id/assist" element={<AssistPage />} />
      <Route element={<Shell />}>
        <Route index element={operator ? <OverviewPage /> : <Navigate to="/incidents" replace />} />
        <Route path="/incidents" element={<IncidentsPage />} />
        <Route path="/incidents/:id" element={<IncidentPage />} />
        <Route path="/calls" element={<CallsPage />} />
        <Route path="/calls/:id" element={<CallPage />} />
        <Route path="/endpoints" element={<EndpointsPage />} />
        <Route path="/endpoints/:id" element={<EndpointPage operator={operator} />} />
        <Route path="/updates" element={<UpdatesPage operator={operator} />} />
        <Route path="/tokens" element={<TokensPage />} />
        <Route path="/enrolments" element={<EnrolmentsPage />} />
        <Route path="/enrolments/:id" element={<EnrolmentPage />} />
        <Route path="/sessions" element={<SessionsPage />} />
        <Route path="/desktops" element={<DesktopsPage />} />
        <Route path="/gateways" element={<GatewaysPage operator={operator} />} />
        <Route path="/offices" element={<OfficesPage operator={operator} />} />
        <Route path="/time-travel" element={<TimeTravelPage />} />
        <Route path="/sla" element={<SlaPage />} />
        <Route path="/sites" element={<SitesPage />} />
        {operator && (
          <>
            <Route path="/hosts" element={<HostsPage />} />
            <Route path="/images" element={<ImagesPage />} />
            <Route path="/pools" element={<PoolsPage />} />
            <Route path="/pools/:id" element={<PoolPage />} />
            <Route path="/notify" element={<NotifyPage />} />
            <Route path="/users" element={<UsersPage />} />
            <Route path="/audit" element={<AuditPage />} />
          </>
        )}
        <Route path="*" element={<Navigate to="/" replace />} />
      </Route>
    </Routes>
  )
}
