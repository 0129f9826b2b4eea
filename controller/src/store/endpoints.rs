//! Endpoints, what they last reported, and the tokens they enrol with.

use serde_json::Value;
use sqlx::types::Json;
use tram_wire::ids::EndpointId;
use uuid::Uuid;

use super::metered::metered;
use super::{Result, Store, Tx, TxInner, exec_tx, on_read, on_tx};
use crate::domain::approval::Approval;
use crate::domain::copies::Suspicion;
use crate::domain::endpoint::{EndpointState, LinkWay, Verdict};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Endpoint {
    /// Id, also the subject of its certificate.
    #[sqlx(try_from = "Uuid")]
    pub id: EndpointId,
    /// What it calls itself.
    pub name: String,
    /// The site it stands in.
    pub site_code: String,
    /// That site's name, if the code is known.
    pub site_name: Option<String>,
    /// That site's district.
    pub district_name: Option<String>,
    /// Presence.
    #[sqlx(try_from = "String")]
    pub state: EndpointState,
    /// How it is.
    #[sqlx(try_from = "String")]
    pub verdict: Verdict,
    /// What its checks found.
    #[sqlx(json)]
    pub findings: Value,
    /// Who it says it is.
    #[sqlx(json)]
    pub hello: Value,
    /// What it is made of.
    #[sqlx(json(nullable))]
    pub hardware: Option<Value>,
    /// How it feels.
    #[sqlx(json(nullable))]
    pub vitals: Option<Value>,
    /// How its network is.
    #[sqlx(json(nullable))]
    pub network: Option<Value>,
    /// Its clock less ours, milliseconds.
    pub skew_ms: Option<i64>,
    /// When it was last heard, microseconds.
    pub last_seen_at: Option<i64>,
    /// When it last reported more than a beat.
    pub reported_at: Option<i64>,
    /// When it enrolled.
    pub enrolled_at: i64,
    /// When its newest certificate ends.
    pub cert_not_after: i64,
    /// What carries its link, or did the last time.
    #[sqlx(try_from = "String")]
    pub linked_by: LinkWay,
    /// Its line is paid by the byte.
    pub metered: bool,
    /// What is said of that of it alone; `None`: as its site.
    pub metered_here: Option<bool>,
    /// When the certificate ended that the newest was issued from.
    pub renewed_from: Option<i64>,
    /// When it was withdrawn.
    pub revoked_at: Option<i64>,
    /// Since when several computers are taken to show its identity.
    pub quarantined_at: Option<i64>,
    /// Why.
    #[sqlx(json(nullable))]
    pub suspicion: Option<Suspicion>,
}

/// Something that happened to an endpoint.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Event {
    /// When, microseconds.
    pub at: i64,
    /// What, in one word.
    pub kind: String,
    /// The particulars, for people.
    pub detail: String,
}

/// An enrolment token; its secret is known only to who got it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Token {
    /// Id.
    pub id: Uuid,
    /// Where its endpoints stand.
    pub site_code: String,
    /// That site's name.
    pub site_name: Option<String>,
    /// That site's district.
    pub district_name: Option<String>,
    /// Endpoints it was made for.
    pub uses: i64,
    /// Endpoints it may still enrol.
    pub uses_left: i64,
    /// How it lets computers in.
    #[sqlx(try_from = "String")]
    pub approval: Approval,
    /// Serial numbers it still expects.
    #[sqlx(json)]
    pub serials: Vec<String>,
    /// What it is for.
    pub note: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: i64,
    /// Until when it works.
    pub expires_at: i64,
}

/// A new token.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// Id.
    pub id: Uuid,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Where its endpoints stand.
    pub site_code: &'a str,
    /// Endpoints it may enrol.
    pub uses: i64,
    /// How it lets computers in.
    pub approval: Approval,
    /// Serial numbers it expects.
    pub serials: &'a [String],
    /// What it is for.
    pub note: &'a str,
    /// Who makes it.
    pub created_by: &'a str,
    /// Until when it works.
    pub expires_at: Time,
}

/// A token that was shown.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct UsedToken {
    /// Id.
    pub id: Uuid,
    /// Where its endpoints stand.
    pub site_code: String,
    /// How it lets computers in.
    #[sqlx(try_from = "String")]
    pub approval: Approval,
    /// Serial numbers it still expects.
    #[sqlx(json)]
    pub serials: Vec<String>,
}

/// Which endpoints to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of these sites.
    pub sites: Option<Vec<String>>,
    /// Only of this site or of sites directly below it.
    pub site: Option<String>,
    /// Only in this state.
    pub state: Option<EndpointState>,
    /// Only those whose worst check is this; who isn't heard is unknown.
    pub verdict: Option<Verdict>,
    /// Only names containing this, whatever the case.
    pub text: Option<String>,
    /// Only after this one in the list (the cursor).
    pub after: Option<EndpointId>,
    /// At most so many.
    pub limit: i64,
}

/// What a report changes; absent parts stay.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Who it says it is, and its name in lists.
    pub hello: Option<(Value, String)>,
    /// What it is made of.
    pub hardware: Option<Value>,
    /// How it feels.
    pub vitals: Option<Value>,
    /// How its network is.
    pub network: Option<Value>,
    /// What its checks found, and what that amounts to.
    pub findings: Option<(Value, Verdict)>,
}

impl Report {
    /// Whether there is anything in it.
    #[must_use]
    pub fn says_anything(&self) -> bool {
        let parts = [&self.hardware, &self.vitals, &self.network];
        self.hello.is_some() || self.findings.is_some() || parts.into_iter().any(Option::is_some)
    }
}

/// An endpoint was heard, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub id: EndpointId,
    /// When.
    pub at: Time,
    /// Its clock less ours.
    pub skew_ms: Option<i64>,
}

const COLUMNS: &str = concat!(
    "e.id, e.name, e.site_code, s.name AS site_name, d.name AS district_name, e.state, e.verdict, e.findings, \
    e.hello, e.hardware, e.vitals, e.network, e.skew_ms, e.last_seen_at, \
    COALESCE((SELECT n.arrived_at FROM endpoint_now n WHERE n.endpoint_id = e.id AND n.arrived_at > COALESCE(e.reported_at, 0)), e.reported_at) AS reported_at, e.enrolled_at, e.cert_not_after, COALESCE(e.linked_by, 'websocket') AS linked_by, e.renewed_from, e.revoked_at, \
    e.quarantined_at, e.suspicion, e.metered = 'yes' AS metered_here, ",
    metered!("e"),
    " AS metered"
);
const SITES: &str = "LEFT JOIN sites s ON s.code = {t}.site_code AND s.valid_to IS NULL \
    LEFT JOIN sites d ON d.code = s.parent_code AND d.valid_to IS NULL";
/// Binds: 1 sites in scope as `,a,b,`, 2 site, 3 state, 4 text pattern, 5 verdict.
const WHERE: &str = "($1 IS NULL OR $1 LIKE '%,' || e.site_code || ',%') \
    AND ($2 IS NULL OR e.site_code = $2 OR s.parent_code = $2) AND ($3 IS NULL OR e.state = $3) \
    AND ($4 IS NULL OR LOWER(e.name) LIKE $4 ESCAPE '\\' OR e.site_code LIKE $4 ESCAPE '\\') \
    AND ($5 IS NULL OR CASE WHEN e.state = 'online' THEN e.verdict ELSE 'unknown' END = $5)";

fn joined(table: &str) -> String {
    SITES.replace("{t}", table)
}

/// A LIKE pattern that finds the text itself, wildcards included.
fn pattern(text: &str) -> String {
    let mut p = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            p.push('\\');
        }
        p.push(c);
    }
    p + "%"
}

impl Store {
    /// Endpoints by name, and how many match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints(&self, f: &Filter) -> Result<(Vec<Endpoint>, i64)> {
        let sites = f.sites.as_ref().map(|codes| format!(",{},", codes.join(",")));
        let text = f.text.as_deref().map(pattern);
        let state = f.state.map(EndpointState::as_str);
        let verdict = f.verdict.map(Verdict::as_str);
        let from = format!("FROM endpoints e {} WHERE {WHERE}", joined("e"));
        let count = format!("SELECT COUNT(*) {from}");
        let total: i64 = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(count.clone()))
            .bind(&sites).bind(&f.site).bind(state).bind(&text).bind(verdict).fetch_one(c))?;
        let list = format!(
            "SELECT {COLUMNS} {from} AND ($6 IS NULL OR (e.name, e.id) > (SELECT a.name, a.id FROM endpoints a WHERE a.id = $6)) \
             ORDER BY e.name, e.id LIMIT $7"
        );
        let rows = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(list.clone()))
            .bind(&sites).bind(&f.site).bind(state).bind(&text).bind(verdict).bind(f.after.map(|id| id.0)).bind(f.limit).fetch_all(c))?;
        Ok((rows, total))
    }

    /// One endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>> {
        let sql = format!("SELECT {COLUMNS} FROM endpoints e {} WHERE e.id = $1", joined("e"));
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).fetch_optional(c))?)
    }

    /// The newest events of an endpoint, newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_events(&self, id: EndpointId, limit: i64) -> Result<Vec<Event>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT at, kind, detail FROM endpoint_events WHERE endpoint_id = $1 ORDER BY id DESC LIMIT $2")
            .bind(id.0).bind(limit).fetch_all(c))?)
    }

    /// Site, state and number of endpoints, for counts within a scope.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_counts(&self) -> Result<Vec<(String, String, i64)>> {
        Ok(
            on_read!(self, c => sqlx::query_as("SELECT site_code, state, COUNT(*) FROM endpoints GROUP BY site_code, state")
            .fetch_all(c))?,
        )
    }

    /// Tokens that still work, newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_tokens(&self, now: Time) -> Result<Vec<Token>> {
        let sql = format!(
            "SELECT t.id, t.site_code, s.name AS site_name, d.name AS district_name, t.uses, t.uses_left, \
             t.approval, t.serials, t.note, t.created_by, \
             t.created_at, t.expires_at FROM endpoint_tokens t {} WHERE t.uses_left > 0 AND t.expires_at > $1 ORDER BY t.created_at DESC",
            joined("t")
        );
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(now.micros()).fetch_all(c))?)
    }

    /// Endpoints withdrawn since then.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_revoked_since(&self, since: Time) -> Result<Vec<EndpointId>> {
        let ids: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar("SELECT id FROM endpoints WHERE revoked_at >= $1")
            .bind(since.micros()).fetch_all(c))?;
        Ok(ids.into_iter().map(EndpointId).collect())
    }
}

impl Tx {
    /// Keeps a new token.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_endpoint_token(&mut self, t: &NewToken<'_>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO endpoint_tokens (id, token_hash, site_code, uses, uses_left, note, created_by, created_at, expires_at, approval, serials) \
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10)")
            .bind(t.id).bind(t.hash.as_slice()).bind(t.site_code).bind(t.uses).bind(t.note).bind(t.created_by)
            .bind(now.micros()).bind(t.expires_at.micros()).bind(t.approval.as_str()).bind(Json(t.serials)).execute(c))?;
        Ok(())
    }

    /// Uses a token up by one. One statement, so two users can't share the last use.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn use_endpoint_token(&mut self, hash: &[u8; 32], now: Time) -> Result<Option<UsedToken>> {
        Ok(on_tx!(self, c => sqlx::query_as(
            "UPDATE endpoint_tokens SET uses_left = uses_left - 1 \
             WHERE token_hash = $1 AND uses_left > 0 AND expires_at > $2 RETURNING id, site_code, approval, serials")
            .bind(hash.as_slice()).bind(now.micros()).fetch_optional(c))?)
    }

    /// Adds an endpoint that was never heard.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_endpoint(
        &mut self,
        id: EndpointId,
        name: &str,
        site_code: &str,
        hello: &Value,
        cert_not_after: Time,
        now: Time,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO endpoints (id, name, site_code, state, verdict, findings, hello, enrolled_at, cert_not_after) \
             VALUES ($1, $2, $3, 'never', 'unknown', $4, $5, $6, $7)")
            .bind(id.0).bind(name).bind(site_code).bind(Json(Value::Array(Vec::new()))).bind(Json(hello))
            .bind(now.micros()).bind(cert_not_after.micros()).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(())
    }

    /// Writes down a report. The verdict before it, if the endpoint is there and not withdrawn.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_endpoint_report(&mut self, id: EndpointId, r: &Report, now: Time) -> Result<Option<Verdict>> {
        let old: Option<String> = on_tx!(self, c => sqlx::query_scalar(
            "SELECT verdict FROM endpoints WHERE id = $1 AND state <> 'revoked'").bind(id.0).fetch_optional(c))?;
        let Some(old) = old else { return Ok(None) };
        let json = |v: &Option<Value>| v.clone().map(Json);
        exec_tx!(self, c => sqlx::query(
            "UPDATE endpoints SET hello = COALESCE($2, hello), name = COALESCE($3, name), hardware = COALESCE($4, hardware), \
             vitals = COALESCE($5, vitals), network = COALESCE($6, network), findings = COALESCE($7, findings), \
             verdict = COALESCE($8, verdict), reported_at = $9 WHERE id = $1")
            .bind(id.0).bind(r.hello.as_ref().map(|(h, _)| Json(h))).bind(r.hello.as_ref().map(|(_, n)| n))
            .bind(json(&r.hardware)).bind(json(&r.vitals)).bind(json(&r.network))
            .bind(r.findings.as_ref().map(|(f, _)| Json(f))).bind(r.findings.as_ref().map(|(_, v)| v.as_str()))
            .bind(now.micros()).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(Some(old.parse().unwrap_or(Verdict::Unknown)))
    }

    /// Writes down who was heard, and when: one statement for all on PostgreSQL, one prepared one each
    /// on SQLite, where a round trip costs nothing. Those that were silent or new; they are online now.
    /// A silent one whose word is from before `back_since` stays silent: the word was written down late.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_heard(&mut self, heard: &[Heard], back_since: Time) -> Result<Vec<EndpointId>> {
        let mut back: Vec<Uuid> = Vec::new();
        match &mut self.inner {
            TxInner::Sqlite(t) => {
                for h in heard {
                    let was_away: Option<bool> = sqlx::query_scalar(
                        "SELECT state = 'never' OR (state = 'silent' AND $2 >= $3) FROM endpoints \
                         WHERE id = $1 AND state <> 'revoked'",
                    )
                    .bind(h.id.0)
                    .bind(h.at.micros())
                    .bind(back_since.micros())
                    .fetch_optional(&mut **t)
                    .await?;
                    if was_away == Some(true) {
                        back.push(h.id.0);
                    }
                    sqlx::query(
                        "UPDATE endpoints SET state = CASE WHEN state = 'silent' AND $2 < $4 THEN 'silent' ELSE 'online' END, \
                         back_at = CASE WHEN state = 'never' OR (state = 'silent' AND $2 >= $4) THEN $2 ELSE back_at END, \
                         last_seen_at = MAX(COALESCE(last_seen_at, 0), $2), skew_ms = COALESCE($3, skew_ms) WHERE id = $1 AND state <> 'revoked'",
                    )
                    .bind(h.id.0)
                    .bind(h.at.micros())
                    .bind(h.skew_ms)
                    .bind(back_since.micros())
                    .execute(&mut **t)
                    .await?;
                }
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = heard.iter().map(|h| h.id.0).collect();
                let at: Vec<i64> = heard.iter().map(|h| h.at.micros()).collect();
                let skew: Vec<Option<i64>> = heard.iter().map(|h| h.skew_ms).collect();
                back = sqlx::query_scalar(
                    "SELECT e.id FROM endpoints e JOIN UNNEST($1::uuid[], $2::bigint[]) AS h (id, at) ON e.id = h.id \
                     WHERE e.state = 'never' OR (e.state = 'silent' AND h.at >= $3) FOR UPDATE OF e",
                )
                .bind(&ids)
                .bind(&at)
                .bind(back_since.micros())
                .fetch_all(&mut **t)
                .await?;
                sqlx::query(
                    "UPDATE endpoints e SET \
                     state = CASE WHEN e.state = 'silent' AND h.at < $4 THEN 'silent' ELSE 'online' END, \
                     back_at = CASE WHEN e.state = 'never' OR (e.state = 'silent' AND h.at >= $4) THEN h.at ELSE e.back_at END, \
                     last_seen_at = GREATEST(COALESCE(e.last_seen_at, 0), h.at), \
                     skew_ms = COALESCE(h.skew, e.skew_ms) \
                     FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[]) AS h (id, at, skew) \
                     WHERE e.id = h.id AND e.state <> 'revoked'",
                )
                .bind(&ids)
                .bind(&at)
                .bind(&skew)
                .bind(back_since.micros())
                .execute(&mut **t)
                .await?;
            }
        }
        for id in &back {
            self.touch(Kind::Endpoint, *id);
        }
        Ok(back.into_iter().map(EndpointId).collect())
    }

    /// A link of an endpoint began: what was measured before says nothing of now.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_linked(&mut self, id: EndpointId, at: Time, way: LinkWay) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE endpoints SET back_at = $2, linked_by = $3 WHERE id = $1")
            .bind(id.0).bind(at.micros()).bind(way.as_str()).execute(c))?;
        Ok(())
    }

    /// Marks an endpoint as silent at once: it said goodbye. `false` if it wasn't online.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_left(&mut self, id: EndpointId) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query("UPDATE endpoints SET state = 'silent' WHERE id = $1 AND state = 'online'")
            .bind(id.0).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(rows == 1)
    }

    /// Marks endpoints not heard since then as silent, those whose line is paid by the byte if not heard since `slow`; which
    /// ones, with the time they were last heard.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn silence_endpoints(&mut self, before: Time, slow: Time) -> Result<Vec<(EndpointId, Time)>> {
        let rows: Vec<(Uuid, i64)> = on_tx!(self, c => sqlx::query_as(concat!(
            "UPDATE endpoints SET state = 'silent' WHERE state = 'online' AND last_seen_at < CASE WHEN ", metered!("endpoints"),
            " THEN $2 ELSE $1 END RETURNING id, last_seen_at"))
            .bind(before.micros()).bind(slow.micros()).fetch_all(c))?;
        for (id, _) in &rows {
            self.touch(Kind::Endpoint, *id);
        }
        Ok(rows.into_iter().map(|(id, at)| (EndpointId(id), Time::from_micros(at))).collect())
    }

    /// Withdraws an endpoint. `false` if it is already.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn revoke_endpoint(&mut self, id: EndpointId, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE endpoints SET state = 'revoked', revoked_at = $2 WHERE id = $1 AND state <> 'revoked'")
            .bind(id.0).bind(now.micros()).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(rows == 1)
    }

    /// A new certificate was issued, perhaps from one that had ended. `false` if the endpoint is withdrawn or unknown.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn renew_endpoint(&mut self, id: EndpointId, cert_not_after: Time, ended: Option<Time>) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE endpoints SET renewed_from = COALESCE($3, cert_not_after), cert_not_after = $2 WHERE id = $1 AND state <> 'revoked'")
            .bind(id.0).bind(cert_not_after.micros()).bind(ended.map(Time::micros)).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(rows == 1)
    }

    /// Remembers something that happened to an endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_event(&mut self, id: EndpointId, kind: &str, detail: &str, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("INSERT INTO endpoint_events (endpoint_id, at, kind, detail) VALUES ($1, $2, $3, $4)")
            .bind(id.0).bind(now.micros()).bind(kind).bind(detail).execute(c))?;
        Ok(())
    }
}
