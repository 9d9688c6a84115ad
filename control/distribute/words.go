package distribute

import (
	"fmt"
	"strings"

	"weir/control/etcd"
	"weir/policy"
	"weir/policy/diff"
)

// mostWords is how many differences are put into words.
const mostWords = 100

// words says what bringing the cluster into step means, one line for each document.
func (c *cluster) words(todo []Difference) []string {
	var lines []string
	for _, d := range todo[:min(len(todo), mostWords)] {
		lines = append(lines, c.meaning(d)+d.Cause.blame())
	}
	if more := len(todo) - mostWords; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more documents", more))
	}
	return lines
}

// meaning is the difference between what a document is and what it should be.
func (c *cluster) meaning(d Difference) string {
	is, should := c.document(d.Key, d.Is), c.document(d.Key, d.Put)
	if d.Is != nil && is == nil {
		return d.Key + ": is no valid document"
	}
	change, _ := diff.Document(is, should)
	var sentences []string
	for _, difference := range change.Differences {
		sentences = append(sentences, difference.Text)
	}
	return strings.Join(sentences, "; ")
}

// document decodes a text at the cluster, or returns nil.
func (c *cluster) document(key string, text []byte) *policy.Document {
	doc, _ := decode(etcd.Item{Key: c.layout.Policy() + key, Value: text}, c.layout, c.rule.target().Name)
	return doc
}

// blame says in brackets whose doing a difference is, unless the source has changed.
func (c Cause) blame() string {
	switch c {
	case Changed:
		return " (somebody else wrote it)"
	case Missing:
		return " (somebody else deleted it)"
	case Extra:
		return " (somebody else put it there)"
	}
	return ""
}
