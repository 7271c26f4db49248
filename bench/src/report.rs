//! Figures beside their targets, as a table and as JSON.

use std::fmt::Write as _;

use crate::Outcome;
use crate::args::Args;

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, figure: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtMost(bound) => Some(figure <= bound),
            Self::AtLeast(bound) => Some(figure >= bound),
        }
    }
}

struct Line {
    name: String,
    figure: f64,
    unit: &'static str,
    target: Target,
}

/// All figures of a run.
pub(crate) struct Report {
    title: &'static str,
    settings: String,
    lines: Vec<Line>,
    /// Arrays of figures over time, for the JSON alone.
    series: Vec<(&'static str, Vec<f64>)>,
}

impl Report {
    pub(crate) fn new(title: &'static str, settings: String) -> Self {
        Self { title, settings, lines: Vec::new(), series: Vec::new() }
    }

    /// Adds a figure, and shows it at once: a run takes minutes.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        figure: f64,
        unit: &'static str,
        target: Target,
    ) {
        let line = Line { name: name.into(), figure, unit, target };
        eprintln!("  {}", line.text());
        self.lines.push(line);
    }

    pub(crate) fn add_series(&mut self, name: &'static str, figures: Vec<f64>) {
        self.series.push((name, figures));
    }

    /// Prints and writes everything. Answers whether all targets are met.
    pub(crate) fn finish(&self, args: &Args) -> Outcome<bool> {
        println!("\n{}: {}", self.title, self.settings);
        for line in &self.lines {
            println!("  {}", line.text());
        }
        std::fs::write(&args.json, self.json())?;
        println!("written to {}", args.json.display());
        Ok(self.lines.iter().all(|line| line.target.is_met(line.figure) != Some(false)))
    }

    fn json(&self) -> String {
        let mut out = format!(
            "{{\n  \"title\": \"{}\",\n  \"settings\": \"{}\",\n  \"figures\": [",
            self.title, self.settings
        );
        for (index, line) in self.lines.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (relation, bound) = match line.target {
                Target::None => ("null", "null".to_owned()),
                Target::AtMost(bound) => ("\"<=\"", bound.to_string()),
                Target::AtLeast(bound) => ("\">=\"", bound.to_string()),
            };
            let met = line.target.is_met(line.figure).map_or("null".to_owned(), |m| m.to_string());
            let _ = write!(
                out,
                "{comma}\n    {{\"name\": \"{}\", \"figure\": {:.4}, \"unit\": \"{}\", \
                 \"relation\": {relation}, \"target\": {bound}, \"met\": {met}}}",
                line.name, line.figure, line.unit
            );
        }
        out.push_str("\n  ]");
        for (name, figures) in &self.series {
            let figures: Vec<_> = figures.iter().map(|figure| format!("{figure:.4}")).collect();
            let _ = write!(out, ",\n  \"{name}\": [{}]", figures.join(", "));
        }
        out.push_str("\n}\n");
        out
    }
}

impl Line {
    fn text(&self) -> String {
        let target = match self.target {
            Target::None => String::new(),
            Target::AtMost(bound) => format!("<= {bound}"),
            Target::AtLeast(bound) => format!(">= {bound}"),
        };
        let verdict = match self.target.is_met(self.figure) {
            None => "",
            Some(true) => "pass",
            Some(false) => "FAIL",
        };
        format!(
            "{:<54} {:>12.2} {:<9} {:>10}  {verdict}",
            self.name, self.figure, self.unit, target
        )
    }
}
