//! A picture of a store: live and dead bytes by shard, and by segment.
//!
//! It brings colours for light and for dark surroundings, and takes what the viewer prefers.

use std::fmt::Write;

use caskade::{SegmentStats, ShardStats};

use crate::units;

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
/// Where the drawing begins, right of the labels.
const LEFT: f64 = 76.0;
const SHARDS_TOP: f64 = 112.0;
const SHARDS_HEIGHT: f64 = 160.0;
const ROW: f64 = 18.0;
const TEXT: f64 = 12.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #57606a }
.page { fill: #ffffff } .title { font-size: 18px; font-weight: 600; fill: #1f2328 }
.head { font-size: 14px; font-weight: 600; fill: #1f2328 }
.live { fill: #0969da } .dead { fill: #fb8f44 } .open { stroke: #1a7f37; stroke-width: 2 }
.line { stroke: #8c959f; stroke-width: 1 } .mean { stroke: #57606a; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 } .page { fill: #0d1117 } .title, .head { fill: #f0f6fc }
.live { fill: #4493f8 } .dead { fill: #f0883e } .open { stroke: #3fb950 }
.line { stroke: #656c76 } .mean { stroke: #9198a1 }
}";

/// Draws the picture.
pub(super) fn draw(title: &str, shards: &[ShardStats], segments: &[SegmentStats]) -> String {
    let rows_top = SHARDS_TOP + SHARDS_HEIGHT + 76.0;
    let height = rows_top + shards.len() as f64 * ROW + MARGIN + 8.0;
    let mut svg = Svg { out: String::new() };
    svg.line(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">"
    ));
    svg.line(&format!("<title>Live and dead bytes of {}</title>", escaped(title)));
    svg.line(&format!("<style>{STYLE}</style>"));
    svg.line("<rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"6\"/>");
    svg.head(title, shards, segments.len());
    svg.shards(shards);
    svg.segments(rows_top, shards.len(), segments);
    svg.line("</svg>");
    svg.out
}

struct Svg {
    out: String,
}

impl Svg {
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn text(&mut self, class: &str, anchor: &str, at: (f64, f64), text: &str) {
        let (x, y) = at;
        let text = escaped(text);
        self.line(&format!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        ));
    }

    fn bar(&mut self, class: &str, at: (f64, f64), size: (f64, f64), note: &str) {
        let ((x, y), (width, height)) = (at, size);
        if width > 0.0 && height > 0.0 {
            let _ = writeln!(
                self.out,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" \
                 height=\"{height:.2}\"><title>{}</title></rect>",
                escaped(note)
            );
        }
    }

    fn rule(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.line(&format!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    fn head(&mut self, title: &str, shards: &[ShardStats], segments: usize) {
        let sum = |figure: fn(&ShardStats) -> u64| shards.iter().map(figure).sum::<u64>();
        let (live, total) = (sum(|shard| shard.live_bytes), sum(|shard| shard.total_bytes));
        let amp = if live == 0 { 1.0 } else { units::as_f64(total) / units::as_f64(live) };
        self.text("title", "start", (MARGIN, 36.0), title);
        let summary = format!(
            "{} keys in {} shards and {segments} segments; {} live of {}: space amplification {amp:.2}",
            units::count(sum(|shard| shard.keys)),
            shards.len(),
            units::bytes(live),
            units::bytes(total),
        );
        self.text("", "start", (MARGIN, 58.0), &summary);
        for (class, name, x) in [("live", "live", WIDTH - 150.0), ("dead", "dead", WIDTH - 80.0)] {
            self.bar(class, (x, 24.0), (TEXT, TEXT), name);
            self.text("", "start", (x + 18.0, 34.0), name);
        }
    }

    /// A column for each shard, and the mean of all.
    fn shards(&mut self, shards: &[ShardStats]) {
        let greatest = shards.iter().map(|shard| shard.total_bytes).max().unwrap_or(0).max(1);
        let bottom = SHARDS_TOP + SHARDS_HEIGHT;
        let width = WIDTH - MARGIN - LEFT;
        let scale = SHARDS_HEIGHT / units::as_f64(greatest);
        self.text("head", "start", (MARGIN, SHARDS_TOP - 18.0), "Balance of shards");
        for (share, bytes) in [(1.0, greatest), (0.5, greatest / 2), (0.0, 0)] {
            let y = bottom - share * SHARDS_HEIGHT;
            self.rule("line", (LEFT, y), (LEFT + width, y));
            self.text("", "end", (LEFT - 8.0, y + 4.0), &units::bytes(bytes));
        }
        let step = width / shards.len().max(1) as f64;
        let column = (step * 0.7).min(48.0);
        // Room for a number under every column, or under every so many.
        let every = (26.0 / step).ceil().max(1.0) as usize;
        for (id, shard) in shards.iter().enumerate() {
            let x = LEFT + step * id as f64 + (step - column) / 2.0;
            let live = units::as_f64(shard.live_bytes) * scale;
            let dead = units::as_f64(shard.dead_bytes) * scale;
            let note = format!(
                "shard {id}: {} keys, {} live, {} dead",
                units::count(shard.keys),
                units::bytes(shard.live_bytes),
                units::bytes(shard.dead_bytes)
            );
            self.bar("live", (x, bottom - live), (column, live), &note);
            self.bar("dead", (x, bottom - live - dead), (column, dead), &note);
            if id.is_multiple_of(every) {
                self.text("", "middle", (x + column / 2.0, bottom + 16.0), &id.to_string());
            }
        }
        let total: u64 = shards.iter().map(|shard| shard.total_bytes).sum();
        let mean = units::as_f64(total) / shards.len().max(1) as f64;
        let y = bottom - mean * scale;
        self.rule("mean", (LEFT, y), (LEFT + width, y));
        let mean = format!("mean {} (dashed)", units::bytes(mean as u64));
        self.text("", "end", (LEFT + width, SHARDS_TOP - 18.0), &mean);
    }

    /// A row for each shard, with its segments side by side, the oldest first.
    fn segments(&mut self, top: f64, shards: usize, segments: &[SegmentStats]) {
        let width = WIDTH - MARGIN - LEFT;
        let of = |shard: usize| segments.iter().filter(move |one| usize::from(one.shard) == shard);
        let row_bytes = |shard| of(shard).map(|one| one.bytes).sum::<u64>();
        let greatest = (0..shards).map(row_bytes).max().unwrap_or(0).max(1);
        let most = (0..shards).map(|shard| of(shard).count()).max().unwrap_or(0);
        // Segments keep a gap between them as long as there is room for one.
        let gap = if most as f64 * 4.0 < width { 1.5 } else { 0.0 };
        let scale = (width - gap * most as f64) / units::as_f64(greatest);
        self.text(
            "head",
            "start",
            (MARGIN, top - 24.0),
            "Segments by shard, by the age of their ids; those not sealed yet are underlined",
        );
        for shard in 0..shards {
            let y = top + shard as f64 * ROW;
            self.text("", "end", (LEFT - 8.0, y + TEXT - 1.0), &shard.to_string());
            let mut x = LEFT;
            for one in of(shard) {
                let dead_bytes = one.bytes.saturating_sub(one.live_bytes);
                let live = units::as_f64(one.live_bytes) * scale;
                let dead = units::as_f64(dead_bytes) * scale;
                let note = format!(
                    "shard {shard}, segment {}: {} live, {} dead{}",
                    one.segment,
                    units::bytes(one.live_bytes),
                    units::bytes(dead_bytes),
                    if one.is_sealed { "" } else { ", not sealed yet" }
                );
                self.bar("live", (x, y), (live, TEXT), &note);
                self.bar("dead", (x + live, y), (dead, TEXT), &note);
                if !one.is_sealed {
                    self.rule("open", (x, y + TEXT + 2.0), (x + live + dead, y + TEXT + 2.0));
                }
                x += live + dead + gap;
            }
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
