//! Reading the audit.

use super::{App, Ctx, Result};
use crate::domain::access::Role;
use crate::store::audit::{AuditFilter, AuditRow};

/// A page of the audit, newest first, and how many rows match in all.
///
/// # Errors
/// [`super::Error::Forbidden`] for all but operators.
pub async fn list(app: &App, ctx: &Ctx, filter: &AuditFilter) -> Result<(Vec<AuditRow>, i64)> {
    ctx.require(&[Role::Operator])?;
    Ok(app.store.audit_rows(filter).await?)
}
