//! Writing HTML: text is escaped unless it is said to be markup of ours.

/// A page, or a piece of one.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// An empty piece.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds markup of ours.
    pub fn raw(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text of anybody's, between tags or inside a quoted attribute.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// The text of it.
    #[must_use]
    pub fn done(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Html;

    #[test]
    fn nobody_writes_markup_but_we() {
        let mut html = Html::new();
        html.raw("<b title=\"").text("\" onclick='x'").raw("\">").text("<script>&</script>").raw("</b>");
        let expect = "<b title=\"&quot; onclick=&#39;x&#39;\">&lt;script&gt;&amp;&lt;/script&gt;</b>";
        assert_eq!(html.done(), expect);
    }
}
