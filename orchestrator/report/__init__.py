"""Tables, pages and status, from what the store holds.

`build.build` computes a job's report (`model.Report`), `publish.text` prints it in any form, `publish.publish` writes
its files. This file does not import them, because `status` and every other command start without them.
"""
