"""Teaching a critic and keeping it honest: degradations, objectives, sampling, data and the test protocol.

Nothing is imported here; take what is needed from the modules, such as
`from perceptloss.teach.degradations import degrade`.
"""
