//! The QR code of a token: what a camera reads of each of its forms is what was made, and it enrols as it is.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tram_tests::device::{Console, Device};
use tram_tests::world::World;

/// What a camera reads of dark modules.
fn read(side: usize, dark: impl Fn(usize, usize) -> bool) -> Result<String> {
    // Some pixels a module, and a light frame.
    let (scale, frame) = (4, 16);
    let size = side * scale + 2 * frame;
    let shade = |x: usize, y: usize| {
        let module = |p: usize| p.checked_sub(frame).map(|p| p / scale).filter(|p| *p < side);
        match (module(x), module(y)) {
            (Some(x), Some(y)) if dark(x, y) => 0,
            _ => 255,
        }
    };
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(size, size, shade);
    let grids = picture.detect_grids();
    let (_, text) = grids.first().context("no code in the picture")?.decode()?;
    Ok(text)
}

fn of_rows(rows: &[Vec<bool>]) -> Result<String> {
    read(rows.len(), |x, y| rows[y].get(x).copied().unwrap_or(false))
}

/// The modules of half blocks, light on dark.
fn of_text(text: &str) -> Result<String> {
    let lines: Vec<&str> = text.lines().filter(|l| l.contains(['█', '▀', '▄'])).collect();
    let rows: Vec<Vec<bool>> = lines
        .iter()
        .flat_map(|l| {
            let row = |light: [char; 2]| l.chars().map(move |c| !light.contains(&c)).collect::<Vec<bool>>();
            [row(['█', '▀']), row(['█', '▄'])]
        })
        .take(lines.first().map_or(0, |l| l.chars().count()))
        .collect();
    of_rows(&rows)
}

/// The modules of runs `M<x> <y>h<n>v1h-<n>z`.
fn of_svg(svg: &str) -> Result<String> {
    let side: usize =
        svg.split("viewBox=\"0 0 ").nth(1).and_then(|s| s.split(' ').next()).context("no size")?.parse()?;
    let mut rows = vec![vec![false; side]; side];
    let path = svg.rsplit("d=\"").next().context("no path")?;
    for run in path.split('M').skip(1) {
        let (x, rest) = run.split_once(' ').context("x")?;
        let (y, rest) = rest.split_once('h').context("y")?;
        let n: usize = rest.split('v').next().context("n")?.parse()?;
        let (x, y): (usize, usize) = (x.parse()?, y.parse()?);
        rows[y][x..x + n].fill(true);
    }
    of_rows(&rows)
}

/// The modules of a picture without filters, three bytes a pixel.
fn of_png(png: &[u8]) -> Result<String> {
    ensure!(png.starts_with(b"\x89PNG"), "no PNG");
    let size = u32::from_be_bytes(png[16..20].try_into()?) as usize;
    let at = png.windows(4).position(|w| w == b"IDAT").context("no data")?;
    let length = u32::from_be_bytes(png[at - 4..at].try_into()?) as usize;
    let raw = miniz_oxide::inflate::decompress_to_vec_zlib(&png[at + 4..at + 4 + length])
        .map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let mut picture =
        rqrr::PreparedImage::prepare_from_greyscale(size, size, |x, y| raw[y * (1 + 3 * size) + 1 + 3 * x]);
    let (_, text) = picture.detect_grids().first().context("no code in the picture")?.decode()?;
    Ok(text)
}

#[test]
fn a_camera_reads_what_enrols() -> Result<()> {
    let mut world = World::new()?;
    world.start()?;
    let made =
        |more: &[&str]| world.json(&[&["admin", "endpoint", "token", "--site", "00004", "--json"], more].concat());
    let file = |name: &str| world.path().join(name);
    let mut codes = Vec::new();
    for name in ["token.svg", "token.png", "token.txt"] {
        let path = file(name);
        let made = made(&["--qr", path.to_str().context("path")?])?;
        let bytes = std::fs::read(&path)?;
        let read = match name {
            "token.png" => of_png(&bytes)?,
            "token.svg" => of_svg(std::str::from_utf8(&bytes)?)?,
            _ => of_text(std::str::from_utf8(&bytes)?)?,
        };
        assert_eq!(Some(&*read), made["code"].as_str(), "{name}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path)?.permissions());
        assert_eq!(mode & 0o777, 0o600, "{name} holds a secret");
        codes.push(read);
    }
    // On a terminal: the code, and underneath what a person may type.
    let shown = world.cli(&["admin", "endpoint", "token", "--site", "00004", "--qr", "-"])?;
    let read = of_text(&shown)?;
    let (address, token) = read.split_once(' ').context("an address and a token")?;
    ensure!(address == format!("https://{}", world.agents), "{address}");
    let groups: Vec<&str> = token.split('-').collect();
    ensure!(groups.len() == 9 && groups[1..].iter().all(|g| g.len() == 5), "{token}");
    for line in [address, &groups[1..5].join(" "), &groups[5..].join(" ")] {
        ensure!(shown.contains(line), "`{line}` does not stand underneath:\n{shown}");
    }
    codes.push(read);
    // In the console.
    let console = Console::sign_in(&world, "operator")?;
    let (status, answer) = console.post("/api/v1/endpoint-tokens", &json!({"site_code": "00004"}))?;
    ensure!(status == 200, "{status} {answer}");
    let rows = answer["qr"].as_array().context("rows")?.iter().filter_map(|r| r.as_str());
    let rows: Vec<Vec<bool>> = rows.map(|r| r.chars().map(|c| c == '#').collect()).collect();
    let read = of_rows(&rows)?;
    assert_eq!(Some(&*read), answer["code"].as_str());
    assert_eq!(
        read,
        format!("{} {}", answer["address"].as_str().context("address")?, answer["token"].as_str().context("token")?)
    );
    codes.push(read);
    // Each enrols with exactly what was read, once.
    for code in &codes {
        let device = Device::new()?;
        let done = device.run(&["enrol", "--code", code])?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        ensure!(device.identity()?["endpoint_id"].is_string());
        let again = Device::new()?.run(&["enrol", "--code", code])?;
        ensure!(!again.status.success(), "it works twice");
    }
    let nonsense = Device::new()?.run(&["enrol", "--code", "tram1-AAAAA"])?;
    ensure!(String::from_utf8_lossy(&nonsense.stderr).contains("address"), "{:?}", nonsense);
    Ok(())
}
