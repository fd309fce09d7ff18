//! Bar charts as SVG, written by hand: a panel for each quantity, a bar for each rival, a line from the smallest to
//! the largest repetition. Every bar carries its name and its number, so that no colour has to be told apart.

use std::fmt::Write as _;

use crate::results::{Measured, Quantity, Section, VNET};

const WIDTH: f64 = 760.0;
/// Where bars begin: names stand to the left.
const LEFT: f64 = 130.0;
/// How long the longest is: numbers stand to the right.
const LONGEST: f64 = 480.0;
const BAR: f64 = 16.0;
const ROW: f64 = 22.0;
const HEADING: f64 = 34.0;

/// A section as a picture.
#[must_use]
pub fn svg(section: &Section) -> String {
    let quantities = section.quantities();
    let rows: usize = quantities.iter().map(|quantity| section.of(quantity).count()).sum();
    let height = rows as f64 * ROW + quantities.len() as f64 * HEADING + 16.0;
    let (title, text) = (escaped(&section.name), escaped(&description(section)));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title text\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title id=\"title\">{title}</title>\n<desc id=\"text\">{text}</desc>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 8.0;
    for quantity in quantities {
        panel(&mut svg, section, quantity, &mut top);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, section: &Section, quantity: &Quantity, top: &mut f64) {
    let better = if quantity.more_is_better { "more is better" } else { "less is better" };
    let heading = escaped(&format!("{}, {} ({better})", quantity.title, quantity.unit));
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"{:.1}\" font-weight=\"bold\" fill=\"#1a1a1a\">{heading}</text>",
        *top + 20.0
    );
    *top += HEADING;
    let largest = section.of(quantity).filter_map(|it| it.spread).map(|it| it.max).fold(0.0, f64::max);
    for it in section.of(quantity) {
        bar(svg, it, *top, largest);
        *top += ROW;
    }
}

fn bar(svg: &mut String, it: &Measured, top: f64, largest: f64) {
    let scale = |value: f64| if largest > 0.0 { value / largest * LONGEST } else { 0.0 };
    let (colour, weight) = if it.rival == VNET { ("#0b5394", "bold") } else { ("#9aa5b1", "normal") };
    let base = top + BAR - 3.5;
    let name = escaped(&it.rival);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\" font-weight=\"{weight}\" fill=\"#1a1a1a\">{name}</text>",
        LEFT - 8.0
    );
    let Some(spread) = it.spread else {
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{base:.1}\" fill=\"#a61c00\">failed</text>");
        return;
    };
    let middle = top + BAR / 2.0;
    let (from, to) = (LEFT + scale(spread.min), LEFT + scale(spread.max));
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
         <path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8\" stroke=\"#1a1a1a\" fill=\"none\"/>\n\
         <text x=\"{:.1}\" y=\"{base:.1}\" font-weight=\"{weight}\" fill=\"#1a1a1a\">{}</text>",
        scale(spread.median),
        middle - 4.0,
        middle - 4.0,
        to + 8.0,
        number(spread.median)
    );
}

/// The picture in words.
#[must_use]
pub fn description(section: &Section) -> String {
    let panels = section.quantities().into_iter().map(|quantity| {
        let bars = section.of(quantity).map(|it| match it.spread {
            Some(spread) => format!("{} {}", it.rival, number(spread.median)),
            None => format!("{} failed", it.rival),
        });
        format!("{} in {}: {}", quantity.title, quantity.unit, bars.collect::<Vec<_>>().join(", "))
    });
    panels.collect::<Vec<_>>().join(". ")
}

/// Three digits that matter, and no more than the spread would leave.
#[must_use]
pub fn number(value: f64) -> String {
    match value {
        v if v >= 999.5 => thousands(v),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// A whole number with a comma before every three digits.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Quantity;
    use crate::results::tests::section;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.123, 9.999, 12.34, 99.96, 123.4, 999.6, 12_345.6, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.00", "0.12", "10.0", "12.3", "100", "123", "1,000", "12,346", "1,234,567"]);
    }

    #[test]
    fn every_rival_has_a_bar_with_its_name_and_number() {
        let svg = svg(&section());
        for part in [
            "role=\"img\"",
            "<title",
            "<desc",
            ">vnet</text>",
            ">14.1</text>",
            ">slow</text>",
            ">20.5</text>",
        ] {
            assert!(svg.contains(part), "no {part} in\n{svg}");
        }
        assert_eq!(svg.matches("<rect x=").count(), 3);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn what_failed_has_no_bar() {
        let mut section = section();
        section.note(&Quantity::cost("a < b & \"c\"", "ms"), "vnet", Err(anyhow::anyhow!("broken")));
        section.finish(&["vnet"]);
        let svg = svg(&section);
        assert!(svg.contains("failed</text>") && svg.contains("a &lt; b &amp; &quot;c&quot;"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
