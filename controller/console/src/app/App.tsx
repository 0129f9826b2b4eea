import { Center, Loader } from '@mantine/core'
import { lazy, Suspense } from 'react'
import { useTranslation } from 'react-i18next'
import { Navigate, Route, Routes } from 'react-router'
import { LoginPage } from '../pages/LoginPage'
import { OfficerPage } from '../pages/OfficerPage'
import { ErrorPanel } from '../ui/feedback'
import { ViewerPage } from '../viewer/ViewerPage'
import { LiveProvider } from './live'
import { Shell } from './Shell'
import { useSignIn } from './session'

// Commune machines fetch only the officer's part.
const StaffRoutes = lazy(() => import('./StaffRoutes'))

export function App() {
  const { t } = useTranslation()
  const { me, error, retry } = useSignIn()
  if (me === undefined) {
    return (
      <Center mih="100dvh" p="md" component="main">
        {error ? <ErrorPanel error={error} onRetry={retry} /> : <Loader aria-label={t('common.loading')} />}
      </Center>
    )
  }
  if (me === null) return <LoginPage />
  return (
    <LiveProvider>
      {me.user.role === 'officer' ? (
        <OfficerRoutes />
      ) : (
        <Suspense fallback={null}>
          <StaffRoutes role={me.user.role} />
        </Suspense>
      )}
    </LiveProvider>
  )
}

function OfficerRoutes() {
  return (
    <Routes>
      <Route path="/desktop" element={<ViewerPage />} />
      <Route element={<Shell />}>
        <Route index element={<OfficerPage />} />
        <Route path="*" element={<Navigate to="/" replace />} />
      </Route>
    </Routes>
  )
}
