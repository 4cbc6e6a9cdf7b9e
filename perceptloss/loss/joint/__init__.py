"""Joint mode: a critic that goes on learning beside the restorer that learns from it."""

from perceptloss.loss.joint.learner import Learner
from perceptloss.loss.joint.options import Joint, JointOptions, joint_problems, read_joint

__all__ = ["Joint", "JointOptions", "Learner", "joint_problems", "read_joint"]
