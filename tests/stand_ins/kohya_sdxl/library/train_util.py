"""Stand-in with the signatures of sd-scripts at commit 48d368f."""


def verify_command_line_training_args(args):
    pass


def read_config_from_file(args, parser):
    args.v_parameterization, args.masked_loss = True, False  # as a config file would say
    return args
