//! The committed OpenAPI document is the one this version serves; the console's types come from it.
//! After a change of the API: `make openapi`.

use anyhow::Result;

#[test]
fn the_committed_document_is_true() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../controller/openapi/v1.json");
    let mut now = tram_controller::api::router::openapi().to_pretty_json()?;
    now.push('\n');
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(now == committed, "controller/openapi/v1.json is out of date; run `make openapi` and commit it");
    assert!(now.contains("\"openapi\": \"3.1.0\""));
    Ok(())
}
