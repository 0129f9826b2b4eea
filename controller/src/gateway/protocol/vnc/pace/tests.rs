use super::*;
use std::time::Duration;

const AREA: [u8; 8] = [0, 0, 0, 0, 4, 0, 3, 0];
const NOTHING: [u8; 0] = [];

fn init() -> Vec<u8> {
    [&[4, 0, 3, 0][..], &[0; 16], &[0; 4]].concat()
}

fn picture(w: u16, h: u16) -> Vec<u8> {
    let pixels = usize::from(w) * usize::from(h) * 4;
    [&[0, 0, 0, 1, 0, 0, 0, 0][..], &w.to_be_bytes(), &h.to_be_bytes(), &[0; 4], &vec![7; pixels]].concat()
}

fn encodings(list: &[i32]) -> Ask<'static> {
    Ask::Encodings(list.to_vec())
}

fn asked(pacer: &Pacer, ask: Ask<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    pacer.viewer(ask, &mut out).unwrap();
    pacer.take_asks(&mut out);
    out
}

/// Paced, with the whole screen wanted and the first request open.
fn paced() -> Pacer {
    let pacer = Pacer::default();
    pacer.desktop(&init());
    let told = asked(&pacer, encodings(&[7, 5, 0, -26, -254, -312, -313]));
    // Hextile can't be followed, and the desktop knows nothing of fences.
    let list = [7, 0, -26, -254].map(i32::to_be_bytes).concat();
    assert_eq!(told, [&[2, 0, 0, 4][..], &list].concat());
    assert_eq!(pacer.take_words(), [150]);
    assert_eq!(asked(&pacer, Ask::Continuous(true, AREA)), [&[3, 1][..], &AREA].concat());
    pacer
}

#[tokio::test(start_paused = true)]
async fn only_a_viewer_that_knows_how_is_paced() {
    for list in [&[7, -312][..], &[7, -313], &[7, 5]] {
        let pacer = Pacer::default();
        pacer.desktop(&init());
        let told = asked(&pacer, encodings(list));
        assert_eq!(told.len(), 4 + 4 * list.len(), "its list passes as it is");
        let request = [3, 1, 0, 0, 0, 0, 4, 0, 3, 0];
        for _ in 0..3 {
            assert_eq!(asked(&pacer, Ask::Update(&request, true)), request);
        }
        assert_eq!(pacer.desktop(&picture(2, 2)), Passed { pictures: 1, picture: true, put: None });
        assert_eq!(asked(&pacer, Ask::Continuous(true, AREA)), NOTHING, "the desktop would hang up");
        assert!(pacer.take_words().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn pixels_of_another_size_are_not_followed() {
    let pacer = Pacer::default();
    pacer.desktop(&init());
    let sixteen = [0, 0, 0, 0, 16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];
    assert_eq!(asked(&pacer, Ask::Format(&sixteen)), sixteen);
    asked(&pacer, encodings(&[7, -312, -313]));
    assert!(pacer.take_words().is_empty(), "nothing is announced");
}

#[tokio::test(start_paused = true)]
async fn one_request_is_open_and_the_next_waits_for_room_in_the_line() {
    let pacer = paced();
    assert_eq!(asked(&pacer, Ask::Update(&[3, 1, 0, 0, 0, 0, 4, 0, 3, 0], true)), NOTHING, "one is open");
    // 40 kB each: after two more than what is allowed before anything is known is under way.
    let picture = picture(100, 100);
    let mut fences = Vec::new();
    for room in [true, false] {
        let (at, words) = pacer.desktop(&picture).put.unwrap();
        assert_eq!((at, &words[..4], words.len()), (picture.len(), &[248, 0, 0, 0][..], 13));
        fences.push(words[9..].to_vec());
        let mut out = Vec::new();
        pacer.take_asks(&mut out);
        assert_eq!(!out.is_empty(), room);
    }
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(asked(&pacer, Ask::Fence(1, &[9, 9, 9, 9])), NOTHING, "a fence of its own invention");
    assert_eq!(asked(&pacer, Ask::Fence(1, &fences[0])), [&[3, 1][..], &AREA].concat());
    assert_eq!(asked(&pacer, Ask::Fence(1, &fences[0])), NOTHING, "once");
    // A whole picture is asked for at once, whatever is open.
    let whole = [3, 0, 0, 0, 0, 0, 4, 0, 3, 0];
    assert_eq!(asked(&pacer, Ask::Update(&whole, false)), whole);
}

#[tokio::test(start_paused = true)]
async fn words_wait_for_the_end_of_a_picture() {
    let pacer = paced();
    let picture = picture(10, 10);
    assert_eq!(pacer.desktop(&picture[..50]), Passed { pictures: 0, picture: true, put: None });
    assert_eq!(asked(&pacer, Ask::Fence(REQUEST | 7, b"mine")), NOTHING);
    assert!(pacer.take_words().is_empty(), "the viewer is in the middle of a rectangle");
    let (at, words) = pacer.desktop(&[&picture[50..], &picture[..9]].concat()).put.unwrap();
    assert_eq!(at, picture.len() - 50);
    assert_eq!(words[..13], fence(7, b"mine"));
    assert_eq!(words[13], 248);
    let mut sent = 0;
    let refused = std::iter::repeat_with(|| pacer.viewer(Ask::Fence(REQUEST, &[1; 64]), &mut Vec::new()))
        .inspect(|_| sent += 1)
        .find(Result::is_err);
    assert!(refused.is_some() && sent < 100, "words do not pile up without end");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_followed_is_asked_for_at_every_pause() {
    let pacer = paced();
    assert_eq!(pacer.desktop(&[77, 1, 2]), Passed { pictures: 0, picture: true, put: None });
    let mut out = Vec::new();
    pacer.take_asks(&mut out);
    assert_eq!(out, [&[3, 1][..], &AREA].concat());
    assert_eq!(pacer.desktop(&[1; 500]).put, None);
    pacer.paused();
    out.clear();
    pacer.take_asks(&mut out);
    assert_eq!(out, [&[3, 1][..], &AREA].concat());
}

#[tokio::test(start_paused = true)]
async fn a_cap_makes_pictures_plainer_whoever_asks_for_them() {
    let cap = |rate, pressed| Allowance { rate: Some(rate), pressed };
    for pacer in [Pacer::following(), paced()] {
        let list = [7, 0, -26, -254, -312, -313];
        let plain = asked(&pacer, encodings(&list));
        pacer.take_words();
        pacer.cap(cap(100e3, true));
        let mut out = Vec::new();
        pacer.take_asks(&mut out);
        let wanted = [7, 0, -30, -247].map(i32::to_be_bytes).concat();
        assert_eq!(out[4..20], wanted, "least quality, most compression");
        assert_eq!(asked(&pacer, encodings(&list))[4..20], wanted, "the viewer's word does not undo it");
        tokio::time::advance(Duration::from_secs(4)).await;
        pacer.cap(Allowance::default());
        out.clear();
        pacer.take_asks(&mut out);
        assert_eq!(out, plain, "the cap went");
    }
    let silent = Pacer::following();
    silent.cap(cap(100e3, true));
    assert_eq!(asked(&silent, Ask::Continuous(true, AREA)), NOTHING, "nothing to say for who said nothing");
    assert!(silent.take_words().is_empty());
}

/// A line of so many bytes a second and 200 ms there and back, for 20 s: pictures drawn a second, the
/// longest that one was under way, and the levels asked for last.
async fn over(rate: f64, size: u16) -> (f64, Duration, Vec<u8>) {
    let pacer = paced();
    let picture = picture(size, size);
    let began = Instant::now();
    let mut free = began;
    let mut under_way: VecDeque<(Instant, Instant, Vec<u8>)> = VecDeque::new();
    let (mut drawn, mut longest, mut list) = (0, Duration::ZERO, Vec::new());
    let mut open = true;
    while began.elapsed() < Duration::from_secs(20) {
        if open {
            let (_, words) = pacer.desktop(&picture).put.unwrap();
            free = free.max(Instant::now()) + Duration::from_secs_f64(picture.len() as f64 / rate);
            under_way.push_back((Instant::now(), free + Duration::from_millis(200), words[9..].to_vec()));
        }
        // The screen changes a hundred times a second.
        tokio::time::advance(Duration::from_millis(10)).await;
        while under_way.front().is_some_and(|(_, back, _)| *back <= Instant::now()) {
            let (left, back, number) = under_way.pop_front().unwrap();
            // The way there.
            longest = longest.max(back - left);
            drawn += 1;
            let mut out = Vec::new();
            pacer.viewer(Ask::Fence(1, &number), &mut out).unwrap();
        }
        let mut out = Vec::new();
        pacer.take_asks(&mut out);
        if out.first() == Some(&2) {
            list = out[..20].to_vec();
        }
        open = pacer.state().open;
    }
    (f64::from(drawn) / 20.0, longest, list)
}

#[tokio::test(start_paused = true)]
async fn small_pictures_do_not_wait_for_the_round_trip_and_large_ones_do_not_pile_up() {
    let (rate, longest, _) = over(500e3, 20).await;
    assert!(rate > 50.0, "{rate} small pictures a second over 200 ms");
    assert!(longest < Duration::from_millis(300), "{longest:?}");
    // 16 kB each, thirty a second at most.
    let (rate, longest, list) = over(500e3, 64).await;
    assert!(rate > 20.0, "{rate}: the line is used");
    assert!(longest < Duration::from_millis(600), "{longest:?} behind a standing queue");
    let wanted = [-27_i32, -250].map(i32::to_be_bytes).concat();
    assert_eq!(list[12..], wanted, "a thin line gets less quality and more compression");
    let (_, _, list) = over(50e6, 64).await;
    assert!(list.is_empty(), "a broad one what the viewer wants: {list:?}");
}
