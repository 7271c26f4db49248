//! Curves and bars, and the scales they are drawn to.

use super::canvas::Svg;
use crate::compare::args::CEILINGS;
use crate::compare::lines::Unit;

const LEFT: f64 = 62.0;
const HEAD: f64 = 30.0;
const FOOT: f64 = 24.0;
/// Curves of more points go without dots.
const DOTS_MAX: usize = 10;

/// A store's points.
pub(super) struct Curve {
    pub(super) store: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A store's bar.
pub(super) struct Bar {
    pub(super) store: String,
    pub(super) value: f64,
    pub(super) text: String,
}

/// How figures become places.
pub(super) enum Scale {
    /// Places with names, numbered from 0.
    Names(Vec<String>),
    Log(Unit),
    /// From nothing on.
    Linear,
}

impl Scale {
    pub(super) fn log(unit: Unit) -> Self {
        Self::Log(unit)
    }
}

/// A chart.
pub(super) enum Chart {
    Lines { title: String, x: Axis, y: Axis, curves: Vec<Curve> },
    Bars { title: String, bars: Vec<Bar>, mark: Option<(f64, &'static str)> },
}

/// A scale that knows its ends, and where to say what.
pub(super) struct Axis {
    is_log: bool,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn new(scale: Scale, figures: impl Iterator<Item = f64> + Clone) -> Self {
        let most = figures.clone().fold(f64::MIN, f64::max);
        let least = figures.fold(f64::MAX, f64::min);
        match scale {
            Scale::Names(names) => {
                let to = names.len() as f64 - 0.6;
                let ticks = names.into_iter().enumerate().map(|(at, name)| (at as f64, name));
                Self { is_log: false, from: -0.4, to, ticks: ticks.collect() }
            }
            Scale::Linear => {
                let to = most.ceil().max(1.0) as u32;
                let ticks = (0..=to).step_by(if to > 12 { 10 } else { 1 });
                let ticks = ticks.map(|tick| (f64::from(tick), tick.to_string())).collect();
                Self { is_log: false, from: 0.0, to: f64::from(to), ticks }
            }
            Scale::Log(unit) => {
                let (from, to) = (least.max(1e-9) / 1.3, most.max(1e-9) * 1.3);
                let ticks = log_ticks(from, to).into_iter().map(|tick| (tick, label(unit, tick)));
                Self { is_log: true, from, to, ticks: ticks.collect() }
            }
        }
    }

    /// Between 0 and 1.
    fn place(&self, figure: f64) -> f64 {
        let of = |figure: f64| if self.is_log { figure.max(1e-9).ln() } else { figure };
        (of(figure) - of(self.from)) / (of(self.to) - of(self.from))
    }
}

/// Powers of ten, and twos and fives between them if they are few.
fn log_ticks(from: f64, to: f64) -> Vec<f64> {
    let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let steps: &[f64] = if (to / from).log10() < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
    all.filter(|tick| (from..=to).contains(tick)).collect()
}

fn label(unit: Unit, figure: f64) -> String {
    match (unit, figure) {
        (Unit::Millis, ..0.000_999) => format!("{:.0} ns", figure * 1e6),
        (Unit::Millis, ..0.999) => format!("{:.0} µs", figure * 1e3),
        (Unit::Millis, ..999.0) => format!("{figure:.0} ms"),
        (Unit::Millis, _) => format!("{:.0} s", figure / 1e3),
        (Unit::Rate, 1e6..) => format!("{}M", figure / 1e6),
        (Unit::Rate, 1e3..) => format!("{}k", figure / 1e3),
        _ => format!("{figure}"),
    }
}

impl Chart {
    /// None if there is nothing to draw.
    pub(super) fn lines(title: &str, x: Scale, y: Scale, curves: Vec<Curve>) -> Option<Self> {
        let curves: Vec<_> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
        if curves.iter().all(|curve| curve.store == CEILINGS) {
            return None;
        }
        let points = curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::new(x, points.clone().map(|(x, _)| *x));
        let y = Axis::new(y, points.map(|(_, y)| *y));
        Some(Self::Lines { title: title.to_owned(), x, y, curves })
    }

    pub(super) fn has_ceilings(&self) -> bool {
        match self {
            Self::Lines { curves, .. } => curves.iter().any(|curve| curve.store == CEILINGS),
            Self::Bars { .. } => false,
        }
    }

    pub(super) fn draw(&self, svg: &mut Svg, at: (f64, f64), size: (f64, f64)) {
        let head = (at.0, at.1 + 12.0);
        match self {
            Self::Lines { title, x, y, curves } => {
                svg.text("head", "start", head, title);
                let area = ((at.0 + LEFT, at.1 + HEAD), (size.0 - LEFT, size.1 - HEAD - FOOT));
                draw_lines(svg, area, x, y, curves);
            }
            Self::Bars { title, bars, mark } => {
                svg.text("head", "start", head, title);
                draw_bars(svg, (at.0, at.1 + HEAD), (size.0, size.1 - HEAD), bars, *mark);
            }
        }
    }
}

fn draw_lines(
    svg: &mut Svg,
    ((left, top), (width, height)): ((f64, f64), (f64, f64)),
    x: &Axis,
    y: &Axis,
    curves: &[Curve],
) {
    let bottom = top + height;
    for (figure, name) in &y.ticks {
        let at = bottom - y.place(*figure) * height;
        svg.rule("grid", (left, at), (left + width, at));
        svg.text("", "end", (left - 8.0, at + 4.0), name);
    }
    svg.rule("mark", (left, bottom), (left + width, bottom));
    for (figure, name) in &x.ticks {
        let at = left + x.place(*figure) * width;
        svg.text("", "middle", (at, bottom + 16.0), name);
    }
    // This store comes first, and is drawn last, above the others.
    for curve in curves.iter().rev() {
        let points: Vec<_> = curve
            .points
            .iter()
            .map(|point| {
                let at_x = left + x.place(point.0) * width;
                let at_y = bottom - y.place(point.1) * height;
                (at_x, at_y, format!("{}: {:.4}", curve.store, point.1))
            })
            .collect();
        svg.curve(&curve.store, &points, points.len() <= DOTS_MAX);
    }
}

fn draw_bars(
    svg: &mut Svg,
    (left, top): (f64, f64),
    (width, height): (f64, f64),
    bars: &[Bar],
    mark: Option<(f64, &'static str)>,
) {
    let (names, texts) = (90.0, 70.0);
    let most = bars.iter().map(|bar| bar.value).chain(mark.map(|mark| mark.0)).fold(0.0, f64::max);
    let scale = (width - names - texts) / most.max(1e-9);
    let row = (height / bars.len() as f64).min(34.0);
    for (index, bar) in bars.iter().enumerate() {
        let y = top + index as f64 * row;
        let middle = y + row * 0.5 + 4.0;
        svg.text("", "end", (left + names - 8.0, middle), &bar.store);
        svg.bar(&bar.store, (left + names, y + row * 0.15), (bar.value * scale, row * 0.7));
        svg.text("", "start", (left + names + bar.value * scale + 6.0, middle), &bar.text);
    }
    if let Some((value, name)) = mark {
        let x = left + names + value * scale;
        let bottom = top + bars.len() as f64 * row;
        svg.rule("mark", (x, top), (x, bottom));
        svg.text("", "middle", (x, bottom + 14.0), name);
    }
}
