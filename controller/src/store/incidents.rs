//! Incidents, the course of possible ones, and what is known of sites and days for judging them.

use serde_json::Value;
use sqlx::types::Json;
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

use super::{Result, Store, Tx, TxInner, exec_tx, on_read, on_tx};
use crate::domain::incident::damping::Course;
use crate::domain::incident::picture::{Failed, Wide};
use crate::domain::incident::{Cause, Confidence, Evidence, Judgement, Party, Severity};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Incident {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: IncidentId,
    /// What keeps it one over many looks.
    pub key: String,
    /// Why, as judged now.
    #[sqlx(try_from = "String")]
    pub cause: Cause,
    /// Why, as judged first.
    #[sqlx(try_from = "String")]
    pub first_cause: Cause,
    /// Of what, as [`crate::domain::incident::Scope::key`].
    pub scope: String,
    /// What tells two of one scope and cause apart.
    pub detail: String,
    /// How bad.
    #[sqlx(try_from = "String")]
    pub severity: Severity,
    /// How sure.
    #[sqlx(try_from = "String")]
    pub confidence: Confidence,
    /// What speaks for it.
    pub evidence: Json<Vec<Evidence>>,
    /// What would change it.
    pub doubts: Json<Vec<Evidence>>,
    /// Computers it covers.
    pub endpoints: Json<Vec<EndpointId>>,
    /// Who has to act.
    #[sqlx(try_from = "String")]
    pub party: Party,
    /// It is not over.
    pub open: bool,
    /// It comes and goes.
    pub flapping: bool,
    /// Times, microseconds.
    pub opened_at: i64,
    /// When its row last changed.
    pub changed_at: i64,
    /// When it was over.
    pub over_at: Option<i64>,
    /// The incident that explains it.
    pub merged_into: Option<Uuid>,
    /// Who looks after it.
    pub acknowledged_by: Option<String>,
    /// Since when.
    pub acknowledged_at: Option<i64>,
    /// Who handed it to its party.
    pub handed_by: Option<String>,
    /// When.
    pub handed_at: Option<i64>,
    /// Until when they should answer.
    pub answer_by: Option<i64>,
}

/// Something that happened to an incident.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Event {
    /// When, microseconds.
    pub at: i64,
    /// What, in one word: `opened`, `grown`, `cause`, `flapping`, `over`, `merged`, `acknowledged`, `handed`, `note`.
    pub kind: String,
    /// Who, by sign-in name; `system` for the rules.
    pub actor: String,
    /// The particulars.
    pub detail: Json<Value>,
}

/// Which incidents to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those that touch these sites.
    pub sites: Option<Vec<String>>,
    /// Only those that touch this site.
    pub site: Option<String>,
    /// Only open (`true`) or over ones.
    pub open: Option<bool>,
    /// Only with this cause.
    pub cause: Option<Cause>,
    /// Only after this one in the list (the cursor).
    pub after: Option<IncidentId>,
    /// At most so many.
    pub limit: i64,
}

/// What the rules need to know of a computer.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Seen {
    /// Which.
    #[sqlx(try_from = "Uuid")]
    pub id: EndpointId,
    /// Its site.
    pub site_code: String,
    /// Nobody hears it.
    pub silent: bool,
    /// When it was last heard, microseconds.
    pub last_seen_at: i64,
    /// How its network was.
    #[sqlx(json(nullable))]
    pub network: Option<Value>,
    /// How it felt.
    #[sqlx(json(nullable))]
    pub vitals: Option<Value>,
    /// What its checks complain of; `None` if they don't.
    #[sqlx(json(nullable))]
    pub findings: Option<Value>,
    /// Its newest probes by name.
    #[sqlx(json(nullable))]
    pub probes: Option<Value>,
    /// Its gauges by name.
    #[sqlx(json(nullable))]
    pub gauges: Option<Value>,
    /// When its newest record was made, microseconds.
    pub told_at: Option<i64>,
    /// When its newest report came, for those that send no records.
    pub reported_at: Option<i64>,
    /// Since when it is heard without a break.
    pub back_at: Option<i64>,
    /// The last thing that happened to it.
    pub last_event: Option<String>,
    /// Its particulars.
    pub last_detail: Option<String>,
}

/// What is known of a site besides its name.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct SiteFacts {
    /// Code.
    pub site_code: String,
    /// Whose line it has.
    pub carrier: Option<String>,
    /// Until when work was announced, microseconds.
    pub maintenance_until: Option<i64>,
    /// What for.
    pub maintenance_reason: String,
}

/// A desktop that does not work.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FailedDesktop {
    /// Which.
    pub id: Uuid,
    /// Its host's name.
    pub host: String,
    /// The site its pool serves.
    pub site_code: String,
    /// Why.
    pub code: String,
}

/// A day that is not as its weekday.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct CalendarDay {
    /// The day.
    pub day: String,
    /// People work on it although they usually don't; `false`: a holiday.
    pub working: bool,
    /// Its name.
    pub name: String,
}

const COLUMNS: &str = "i.id, i.key, i.cause, i.first_cause, i.scope, i.detail, i.severity, i.confidence, i.evidence, i.doubts, \
    i.endpoints, i.party, i.state = 'open' AS open, i.flapping, i.opened_at, i.changed_at, i.over_at, i.merged_into, \
    i.acknowledged_by, i.acknowledged_at, i.handed_by, i.handed_at, i.answer_by";
/// Binds: 1 sites in scope as `,a,b,`, 2 site, 3 state, 4 cause.
const WHERE: &str = "($1 IS NULL OR EXISTS (SELECT 1 FROM incident_sites s WHERE s.incident_id = i.id AND $1 LIKE '%,' || s.site_code || ',%')) \
    AND ($2 IS NULL OR EXISTS (SELECT 1 FROM incident_sites s WHERE s.incident_id = i.id AND s.site_code = $2)) \
    AND ($3 IS NULL OR i.state = $3) AND ($4 IS NULL OR i.cause = $4)";

impl Store {
    /// Incidents, those that are open first, the newest of each first; and how many match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incidents(&self, f: &Filter) -> Result<(Vec<Incident>, i64)> {
        let sites = f.sites.as_ref().map(|codes| format!(",{},", codes.join(",")));
        let state = f.open.map(|open| if open { "open" } else { "over" });
        let cause = f.cause.map(Cause::as_str);
        let count = format!("SELECT COUNT(*) FROM incidents i WHERE {WHERE}");
        let total: i64 = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(count.clone()))
            .bind(&sites).bind(&f.site).bind(state).bind(cause).fetch_one(c))?;
        let list = format!(
            "SELECT {COLUMNS} FROM incidents i WHERE {WHERE} AND ($5 IS NULL OR (i.state, -i.opened_at, i.id) > \
             (SELECT a.state, -a.opened_at, a.id FROM incidents a WHERE a.id = $5)) ORDER BY i.state, i.opened_at DESC, i.id LIMIT $6"
        );
        let rows = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(list.clone()))
            .bind(&sites).bind(&f.site).bind(state).bind(cause).bind(f.after.map(|id| id.0)).bind(f.limit).fetch_all(c))?;
        Ok((rows, total))
    }

    /// One incident.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incident(&self, id: IncidentId) -> Result<Option<Incident>> {
        let sql = format!("SELECT {COLUMNS} FROM incidents i WHERE i.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).fetch_optional(c))?)
    }

    /// Site codes an incident touches, sorted.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incident_sites(&self, id: IncidentId) -> Result<Vec<String>> {
        Ok(
            on_read!(self, c => sqlx::query_scalar("SELECT site_code FROM incident_sites WHERE incident_id = $1 ORDER BY site_code")
            .bind(id.0).fetch_all(c))?,
        )
    }

    /// Open incidents by the site they touch: `(site, incident, severity)`.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_incidents_by_site(&self) -> Result<Vec<(String, Uuid, String)>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT s.site_code, i.id, i.severity FROM incidents i JOIN incident_sites s ON s.incident_id = i.id \
             WHERE i.state = 'open' ORDER BY s.site_code, i.opened_at").fetch_all(c))?)
    }

    /// What happened to an incident, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incident_events(&self, id: IncidentId) -> Result<Vec<Event>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT at, kind, actor, detail FROM incident_events WHERE incident_id = $1 ORDER BY id LIMIT 1000")
            .bind(id.0).fetch_all(c))?)
    }

    /// Computers that were ever heard and are not withdrawn, as the rules need them.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn seen_endpoints(&self) -> Result<Vec<Seen>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT e.id, e.site_code, e.state = 'silent' AS silent, e.last_seen_at, e.network, e.vitals, h.probes, n.gauges, n.at AS told_at, e.reported_at, e.back_at, \
             CASE WHEN e.verdict IN ('warn', 'crit') THEN e.findings END AS findings, \
             CASE WHEN e.state = 'silent' THEN (SELECT v.kind FROM endpoint_events v WHERE v.endpoint_id = e.id ORDER BY v.id DESC LIMIT 1) END AS last_event, \
             CASE WHEN e.state = 'silent' THEN (SELECT v.detail FROM endpoint_events v WHERE v.endpoint_id = e.id ORDER BY v.id DESC LIMIT 1) END AS last_detail \
             FROM endpoints e LEFT JOIN endpoint_now n ON n.endpoint_id = e.id LEFT JOIN endpoint_health h ON h.endpoint_id = e.id \
             WHERE e.state IN ('online', 'silent') AND e.last_seen_at IS NOT NULL ORDER BY e.id")
            .fetch_all(c))?)
    }

    /// Incidents that silence offices, open or over since a time: cause, when each was opened, and its offices.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn wide_incidents(&self, over_since: Time) -> Result<Vec<Wide>> {
        let rows: Vec<(Uuid, String, i64, String)> = on_read!(self, c => sqlx::query_as(
            "SELECT i.id, i.cause, i.opened_at, s.site_code FROM incidents i JOIN incident_sites s ON s.incident_id = i.id \
             WHERE i.cause IN ('data_centre', 'carrier', 'site_line', 'site_power') AND i.merged_into IS NULL \
             AND (i.state = 'open' OR i.over_at >= $1) ORDER BY i.id, s.site_code")
            .bind(over_since.micros()).fetch_all(c))?;
        let mut all: Vec<(Uuid, Wide)> = Vec::new();
        for (id, cause, opened, site) in rows {
            let Ok(cause) = cause.parse() else { continue };
            match all.last_mut().filter(|(last, _)| *last == id) {
                Some((_, wide)) => wide.sites.push(site),
                None => all.push((id, Wide { cause, opened: Time::from_micros(opened), sites: vec![site] })),
            }
        }
        Ok(all.into_iter().map(|(_, wide)| wide).collect())
    }

    /// Services that fail for everybody, or did until a time after `over_since`.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn failed_services(&self, over_since: Time) -> Result<Vec<Failed>> {
        let rows: Vec<(String, Option<i64>)> = on_read!(self, c => sqlx::query_as(
            "SELECT scope, CASE WHEN state = 'over' THEN over_at END FROM incidents \
             WHERE cause = 'service' AND (state = 'open' OR over_at >= $1)")
            .bind(over_since.micros()).fetch_all(c))?;
        let failed = |(scope, until): (String, Option<i64>)| {
            let service = scope.strip_prefix("service:")?.to_owned();
            Some(Failed { service, until: until.map(Time::from_micros) })
        };
        Ok(rows.into_iter().filter_map(failed).collect())
    }

    /// Desktops that fail although they are wanted.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn failed_desktops(&self) -> Result<Vec<FailedDesktop>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT d.id, h.name AS host, p.site_code, COALESCE(d.error_code, '') AS code FROM desktops d \
             JOIN pools p ON p.id = d.pool_id JOIN hosts h ON h.id = d.host_id \
             WHERE d.state = 'failed' AND d.desired <> 'absent' ORDER BY d.id").fetch_all(c))?)
    }

    /// All that is known of sites besides their names.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn site_facts(&self) -> Result<Vec<SiteFacts>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT site_code, carrier, maintenance_until, maintenance_reason FROM site_facts ORDER BY site_code").fetch_all(c))?)
    }

    /// Days that are not as their weekday, in order.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn calendar_days(&self) -> Result<Vec<CalendarDay>> {
        Ok(
            on_read!(self, c => sqlx::query_as("SELECT day, working, name FROM calendar_days ORDER BY day").fetch_all(c))?,
        )
    }
}

impl Tx {
    /// Whether this transaction is the one that judges now. Of several controllers one does at a time.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn may_judge(&mut self) -> Result<bool> {
        /// `tram` and the first migration of incidents.
        const LOCK: i64 = 0x7472_616d_0030;
        match &mut self.inner {
            // It began with the only write lock there is.
            TxInner::Sqlite(_) => Ok(true),
            TxInner::Postgres(t) => {
                Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK).fetch_one(&mut **t).await?)
            }
        }
    }

    /// The courses of all possible incidents.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incident_courses(&mut self) -> Result<Vec<(String, Severity, Course)>> {
        let rows: Vec<(String, String, Json<Course>)> = on_tx!(self, c => sqlx::query_as("SELECT key, severity, course FROM incident_courses ORDER BY key").fetch_all(c))?;
        Ok(rows.into_iter().map(|(k, s, c)| (k, s.parse().unwrap_or(Severity::Warn), c.0)).collect())
    }

    /// Keeps a course, or forgets it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_incident_course(&mut self, key: &str, severity: Severity, course: Option<&Course>) -> Result<()> {
        match course {
            Some(course) => exec_tx!(self, c => sqlx::query(
                "INSERT INTO incident_courses (key, severity, course) VALUES ($1, $2, $3) \
                 ON CONFLICT (key) DO UPDATE SET severity = excluded.severity, course = excluded.course")
                .bind(key).bind(severity.as_str()).bind(Json(course)).execute(c))?,
            None => {
                exec_tx!(self, c => sqlx::query("DELETE FROM incident_courses WHERE key = $1").bind(key).execute(c))?
            }
        };
        Ok(())
    }

    /// Incidents that are not over, held until this transaction ends.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_incidents(&mut self) -> Result<Vec<Incident>> {
        let sql = format!("SELECT {COLUMNS} FROM incidents i WHERE i.state = 'open' ORDER BY i.id");
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).fetch_all(c))?)
    }

    /// Silences that are over since a time and that nothing else explains.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn silences_over_since(&mut self, since: Time) -> Result<Vec<Incident>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM incidents i WHERE i.state = 'over' AND i.over_at >= $1 AND i.merged_into IS NULL \
             AND i.cause IN ('site_line', 'site_power', 'crashed', 'endpoint_power') ORDER BY i.id"
        );
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(since.micros()).fetch_all(c))?)
    }

    /// Site codes an incident touches, as this transaction sees them.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn sites_of_incident(&mut self, id: IncidentId) -> Result<Vec<String>> {
        Ok(
            on_tx!(self, c => sqlx::query_scalar("SELECT site_code FROM incident_sites WHERE incident_id = $1 ORDER BY site_code")
            .bind(id.0).fetch_all(c))?,
        )
    }

    /// Opens an incident.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_incident(&mut self, id: IncidentId, j: &Judgement, flapping: bool, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO incidents (id, key, cause, first_cause, scope, detail, severity, confidence, evidence, doubts, endpoints, \
             party, state, flapping, opened_at, changed_at) VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open', $12, $13, $13)")
            .bind(id.0).bind(j.key()).bind(j.cause.as_str()).bind(j.scope.key()).bind(&j.detail).bind(j.severity.as_str())
            .bind(j.confidence.as_str()).bind(Json(&j.evidence)).bind(Json(&j.doubts)).bind(Json(&j.endpoints))
            .bind(j.cause.party().as_str()).bind(flapping).bind(now.micros()).execute(c))?;
        self.add_incident_sites(id, &j.sites).await?;
        self.touch(Kind::Incident, id.0);
        Ok(())
    }

    /// Sites an incident touches, besides those it is known to touch.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_incident_sites(&mut self, id: IncidentId, sites: &[String]) -> Result<()> {
        for site in sites {
            exec_tx!(self, c => sqlx::query(
                "INSERT INTO incident_sites (incident_id, site_code) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(id.0).bind(site).execute(c))?;
        }
        Ok(())
    }

    /// The judgement of an open incident changed in its particulars.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn refresh_incident(&mut self, id: IncidentId, j: &Judgement, flapping: bool, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE incidents SET severity = $2, confidence = $3, evidence = $4, doubts = $5, endpoints = $6, flapping = $7, \
             changed_at = $8 WHERE id = $1 AND state = 'open'")
            .bind(id.0).bind(j.severity.as_str()).bind(j.confidence.as_str()).bind(Json(&j.evidence)).bind(Json(&j.doubts))
            .bind(Json(&j.endpoints)).bind(flapping).bind(now.micros()).execute(c))?;
        self.add_incident_sites(id, &j.sites).await?;
        self.touch(Kind::Incident, id.0);
        Ok(())
    }

    /// What came to be known later names another cause.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn judge_incident_again(
        &mut self,
        id: IncidentId,
        cause: Cause,
        confidence: Confidence,
        evidence: &[Evidence],
        now: Time,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE incidents SET cause = $2, confidence = $3, evidence = $4, doubts = $5, party = $6, changed_at = $7 WHERE id = $1")
            .bind(id.0).bind(cause.as_str()).bind(confidence.as_str()).bind(Json(evidence)).bind(Json(Vec::<Evidence>::new()))
            .bind(cause.party().as_str()).bind(now.micros()).execute(c))?;
        self.touch(Kind::Incident, id.0);
        Ok(())
    }

    /// It is over, perhaps because another one explains it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn end_incident(&mut self, id: IncidentId, merged_into: Option<IncidentId>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE incidents SET state = 'over', over_at = $2, changed_at = $2, merged_into = $3 WHERE id = $1 AND state = 'open'")
            .bind(id.0).bind(now.micros()).bind(merged_into.map(|i| i.0)).execute(c))?;
        self.touch(Kind::Incident, id.0);
        Ok(())
    }

    /// Somebody looks after it. `false` if it is over or somebody else does.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn acknowledge_incident(&mut self, id: IncidentId, by: &str, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE incidents SET acknowledged_by = $2, acknowledged_at = $3, changed_at = $3 \
             WHERE id = $1 AND state = 'open' AND (acknowledged_by IS NULL OR acknowledged_by = $2)")
            .bind(id.0).bind(by).bind(now.micros()).execute(c))?;
        self.touch(Kind::Incident, id.0);
        Ok(rows == 1)
    }

    /// It is handed to a party, with a clock. `false` if it is over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn hand_incident(
        &mut self,
        id: IncidentId,
        party: Party,
        by: &str,
        answer_by: Time,
        now: Time,
    ) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE incidents SET party = $2, handed_by = $3, handed_at = $4, answer_by = $5, changed_at = $4 WHERE id = $1 AND state = 'open'")
            .bind(id.0).bind(party.as_str()).bind(by).bind(now.micros()).bind(answer_by.micros()).execute(c))?;
        self.touch(Kind::Incident, id.0);
        Ok(rows == 1)
    }

    /// Writes down what happened to an incident.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incident_event(
        &mut self,
        id: IncidentId,
        kind: &str,
        actor: &str,
        detail: Value,
        now: Time,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO incident_events (incident_id, at, kind, actor, detail) VALUES ($1, $2, $3, $4, $5)")
            .bind(id.0).bind(now.micros()).bind(kind).bind(actor).bind(Json(detail)).execute(c))?;
        Ok(())
    }

    /// Keeps what is known of a site.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_site_facts(&mut self, f: &SiteFacts) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO site_facts (site_code, carrier, maintenance_until, maintenance_reason) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (site_code) DO UPDATE SET carrier = excluded.carrier, maintenance_until = excluded.maintenance_until, \
             maintenance_reason = excluded.maintenance_reason")
            .bind(&f.site_code).bind(&f.carrier).bind(f.maintenance_until).bind(&f.maintenance_reason).execute(c))?;
        Ok(())
    }

    /// Keeps all days that are not as their weekday; those that were known are forgotten.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_calendar(&mut self, days: &[CalendarDay]) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM calendar_days").execute(c))?;
        for d in days {
            exec_tx!(self, c => sqlx::query("INSERT INTO calendar_days (day, working, name) VALUES ($1, $2, $3)")
                .bind(&d.day).bind(d.working).bind(&d.name).execute(c))?;
        }
        Ok(())
    }
}
