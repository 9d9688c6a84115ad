// Package diff says in words what is different between two documents, or two sets of them: `acme steady 100/s → 50/s (-50 %)` rather
// than lines of text. What has no words of its own is said field by field, driven by the tags that the decoder reads, so a field that
// is added to a document one day is not silent here.
package diff
