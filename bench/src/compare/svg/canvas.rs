//! A sheet with a title, a legend, and charts in two columns.

use std::fmt::Write;

use super::chart::Chart;
use crate::compare::args::CEILINGS;

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
const TOP: f64 = 92.0;
const GAP: f64 = 24.0;
const CHART_HEIGHT: f64 = 270.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #57606a }
.page { fill: #ffffff } .title { font-size: 18px; font-weight: 600; fill: #1f2328 }
.head { font-size: 14px; font-weight: 600; fill: #1f2328 }
.grid { stroke: #d1d9e0; stroke-width: 1 } .mark { stroke: #57606a; stroke-dasharray: 4 3 }
polyline { fill: none; stroke-width: 1.75; stroke-linejoin: round }
polyline.caskade { stroke-width: 3.5 } polyline.ceilings { stroke-dasharray: 5 4 }";

const STYLE_DARK: &str = "\
text { fill: #9198a1 } .page { fill: #0d1117 } .title, .head { fill: #f0f6fc }
.grid { stroke: #2f353d } .mark { stroke: #9198a1 }";

/// Every store has a colour, light and dark, the same in all plots.
const COLOURS: &[(&str, &str, &str)] = &[
    ("caskade", "#0969da", "#4493f8"),
    ("candystore", "#bc4c00", "#f0883e"),
    ("fjall", "#1a7f37", "#3fb950"),
    ("redb", "#cf222e", "#ff7b72"),
    ("lmdb", "#8250df", "#bc8cff"),
    ("sled", "#0f8f8f", "#39c5cf"),
    ("rocksdb", "#bf3989", "#f778ba"),
    (CEILINGS, "#8c959f", "#656c76"),
];

/// Plain rules: not every viewer of SVG knows variables.
fn style() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    for (store, in_light, in_dark) in COLOURS {
        for (rules, colour) in [(&mut light, in_light), (&mut dark, in_dark)] {
            let _ = writeln!(
                rules,
                "polyline.{store} {{ stroke: {colour} }} circle.{store}, rect.{store} {{ fill: {colour} }}"
            );
        }
    }
    format!("{STYLE}\n{light}@media (prefers-color-scheme: dark) {{\n{STYLE_DARK}\n{dark}}}")
}

/// Draws the charts.
pub(super) fn sheet(title: &str, stores: &[&str], charts: &[Chart]) -> String {
    let rows = charts.len().div_ceil(2);
    let height = TOP + rows as f64 * (CHART_HEIGHT + GAP);
    let mut svg = Svg { out: String::new() };
    svg.line(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">"
    ));
    svg.line(&format!("<title>{}</title>", escaped(title)));
    svg.line(&format!("<style>{}</style>", style()));
    svg.line("<rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"6\"/>");
    svg.text("title", "start", (MARGIN, 36.0), title);
    svg.legend(stores, charts.iter().any(Chart::has_ceilings));
    let is_alone = charts.len() == 1;
    for (index, chart) in charts.iter().enumerate() {
        let column = (WIDTH - 2.0 * MARGIN - GAP) / 2.0;
        let width = if is_alone { WIDTH - 2.0 * MARGIN } else { column };
        let x = MARGIN + (index % 2) as f64 * (column + GAP);
        let y = TOP + (index / 2) as f64 * (CHART_HEIGHT + GAP);
        chart.draw(&mut svg, (x, y), (width, CHART_HEIGHT));
    }
    svg.line("</svg>");
    svg.out
}

/// What is written so far.
pub(super) struct Svg {
    out: String,
}

impl Svg {
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    pub(super) fn text(&mut self, class: &str, anchor: &str, at: (f64, f64), text: &str) {
        let (x, y) = at;
        let text = escaped(text);
        self.line(&format!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        ));
    }

    pub(super) fn rule(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.line(&format!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn bar(&mut self, store: &str, at: (f64, f64), size: (f64, f64)) {
        let ((x, y), (width, height)) = (at, size);
        self.line(&format!(
            "<rect class=\"{store}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        ));
    }

    /// A line through points, each with a note.
    pub(super) fn curve(&mut self, store: &str, points: &[(f64, f64, String)], has_dots: bool) {
        let _ = write!(self.out, "<polyline class=\"{store}\" points=\"");
        for (x, y, _) in points {
            let _ = write!(self.out, "{x:.1},{y:.1} ");
        }
        self.line("\"/>");
        for (x, y, note) in points.iter().filter(|_| has_dots) {
            self.line(&format!(
                "<circle class=\"{store}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}</title></circle>",
                escaped(note)
            ));
        }
    }

    fn legend(&mut self, stores: &[&str], has_ceilings: bool) {
        let mut x = MARGIN;
        for store in stores.iter().copied().chain(has_ceilings.then_some(CEILINGS)) {
            let name = if store == CEILINGS { "without a store" } else { store };
            let ends = [(x, 60.0, String::new()), (x + 20.0, 60.0, String::new())];
            self.curve(store, &ends, false);
            self.text("", "start", (x + 26.0, 64.0), name);
            x += 46.0 + 7.0 * name.len() as f64;
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
